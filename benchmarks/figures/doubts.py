"""What makes a run hard to believe: a meter that was too slow, an endpoint that errs, stalls or lies; pure.

Owns the checks and their bounds. A doubt refuses a result, or is only to be known; either way it says how
many answers it is about and what to do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import Summary, least_samples, median
from benchmarks.generator.client import Sample

TOLERATED: Final = 0.01
"""Share of answers that may be odd in one way before figures are refused; fewer are only told."""

_BUFFERED_CHUNKS: Final = 5
"""An answer of fewer chunks may well fit into one read."""
_BUNCHED: Final = 0.5
_EMPTY: Final = 0.1
_STALL_TIMES: Final = 10
_STALL_S: Final = 0.2
_BUSY_REFUSED: Final = 0.95
_BUSY_TOLD: Final = 0.8
_JUDGED_S: Final = 0.5
"""A shorter run says nothing of how busy the generator was."""
_JUDGED_LAGS: Final = 30
_JUDGED_LAGGED_S: Final = 1.0
"""So many delays say something of the meter, or so many seconds of delay: one that is held up has few."""
_LAG_SHARE: Final = 0.1
_LAG_S: Final = 0.005
_JUMP_S: Final = 0.1
_JUMP_SHARE: Final = 0.001
"""Clocks that are steered differ by half a thousandth at most (the adjtime of Linux and of NTP)."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """One thing to know of a run; with ``refuses`` its figures are not to be believed."""

    code: str
    text: str
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class Stalls:
    """Gaps between chunks far above the run's own.

    Attributes:
        count: how many.
        longest_s: the longest gap of the run, a stall or not; 0 where there are no gaps.
        bound_s: from where a gap is a stall.
    """

    count: int
    longest_s: float
    bound_s: float


def find_stalls(samples: Iterable[Sample]) -> Stalls:
    """Gaps of more than ten times the median gap, and of 0.2 s at least, which a reader would see."""
    gaps = [gap for sample in samples for gap in sample.gaps]
    moving = [gap for gap in gaps if gap > 0]
    bound = max(_STALL_S, _STALL_TIMES * median(moving)) if moving else _STALL_S
    return Stalls(sum(gap > bound for gap in gaps), max(gaps, default=0.0), bound)


def about_errors(samples: Sequence[Sample], bound: float) -> list[Doubt]:
    """Too many failures: those who were turned away are not in the latencies of those who were served."""
    failed = sum(sample.error is not None for sample in samples)
    if failed <= bound * len(samples):
        return []
    text = f"{failed} of {len(samples)} requests failed, more than --max-errors {bound:.1%} allows."
    return [Doubt("errors_over_bound", text, refuses=True)]


def about_answers(samples: Sequence[Sample], *, ignore_eos: bool) -> list[Doubt]:
    """What an endpoint says of its answers that cannot be, or is not what was asked for."""
    answers = [sample for sample in samples if sample.error is None]
    counted = [sample for sample in answers if sample.counted]
    short = [sample for sample in counted if sample.output_tokens < sample.asked_tokens] if ignore_eos else []
    return [
        *_odd(
            "usage_below_chunks",
            [sample for sample in counted if sample.chunks > sample.output_tokens],
            answers,
            "have more chunks with content than their usage counts tokens: the usage is wrong.",
        ),
        *_odd(
            "usage_over_max_tokens",
            [sample for sample in counted if sample.output_tokens > sample.asked_tokens > 0],
            answers,
            "have more tokens by their usage than max_tokens allowed: the usage is wrong, or max_tokens is "
            "ignored.",
        ),
        *_odd(
            "usage_without_prompt",
            [sample for sample in counted if sample.prompt_tokens == 0],
            answers,
            "have no prompt tokens by their usage, and none can do without: the usage is wrong.",
        ),
        *_odd(
            "answers_short",
            short,
            answers,
            "are shorter than asked for: the endpoint does not keep to ignore_eos, or its context is full. "
            "With --no-ignore-eos lengths are the endpoint's own.",
        ),
        *_usage_above_content(counted),
    ]  # fmt: skip


def _odd(code: str, odd: Sequence[Sample], answers: Sequence[Sample], what: str) -> list[Doubt]:
    if not odd:
        return []
    refuses = len(odd) > TOLERATED * len(answers)
    return [Doubt(code, f"{len(odd)} of {len(answers)} answers {what}", refuses)]


def _usage_above_content(counted: Sequence[Sample]) -> list[Doubt]:
    # A token is one byte at least. Chunks without content may stand for tokens that have no text.
    tokens = sum(sample.output_tokens for sample in counted)
    seen = sum(sample.content_bytes + sample.empty_chunks for sample in counted)
    if tokens <= seen + 2 * len(counted):  # an end of turn, and half a character
        return []
    text = (
        f"By usage the answers have {tokens} tokens, but their content has {seen} bytes, and a token has one "
        "at least: the usage is wrong, or most tokens are invisible."
    )
    return [Doubt("usage_above_content", text, refuses=True)]


def about_chunks(samples: Sequence[Sample]) -> list[Doubt]:
    """How the chunks of streamed answers came."""
    streamed = [sample for sample in samples if sample.error is None and sample.first_token_at is not None]
    long = [sample for sample in streamed if sample.chunks >= _BUFFERED_CHUNKS]
    at_once = [sample for sample in long if not any(sample.gaps)]
    if 2 * len(at_once) > len(long):
        text = (
            f"{len(at_once)} of {len(long)} streamed answers came whole in one read: something on the way "
            "buffers the stream, and TTFT and ITL are not the engine's. A proxy must not buffer "
            "text/event-stream."
        )
        return [Doubt("stream_buffered", text, refuses=True), *_empty(streamed)]
    return [*_bunched(long), *_empty(streamed)]


def _bunched(samples: Sequence[Sample]) -> list[Doubt]:
    gaps = sum(len(sample.gaps) for sample in samples)
    together = sum(gap == 0 for sample in samples for gap in sample.gaps)
    if together <= _BUNCHED * gaps:
        return []
    text = (
        f"{together / gaps:.0%} of the chunks came in one read with the chunk before: something bunches them "
        "(a buffer on the way, or an endpoint faster than the generator reads), and ITL shows the bunches."
    )
    return [Doubt("chunks_bunched", text)]


def _empty(samples: Sequence[Sample]) -> list[Doubt]:
    empty = sum(sample.empty_chunks for sample in samples)
    every = empty + sum(sample.chunks for sample in samples)
    if not empty:
        return []
    text = (
        f"{empty} of {every} chunks are empty; they are not counted as tokens here, but are by meters that "
        "count every chunk."
    )
    return [Doubt("empty_chunks", text, refuses=empty > _EMPTY * every)]


def about_stalls(stalls: Stalls) -> list[Doubt]:
    """Stalls are told by themselves: in a mean they would vanish."""
    if not stalls.count:
        return []
    return [
        Doubt(
            "stalls",
            f"{stalls.count} stalls: gaps between chunks of more than {stalls.bound_s * 1000:.0f} ms; the "
            f"longest took {stalls.longest_s:.2f} s.",
        )
    ]


def about_percentiles(summary: Summary | None, percents: Sequence[float]) -> list[Doubt]:
    """Percentiles that were asked for, and of which the samples hold too few."""
    count = summary.count if summary else 0
    return [
        Doubt(
            "too_few_samples",
            f"p{percent:g} takes {least_samples(percent):,} requests at least, and these are {count:,}: "
            "measure longer.",
            refuses=True,
        )
        for percent in percents
        if count < least_samples(percent)
    ]


def about_generator(busy: Sequence[float], seconds: float, *, advice: str = "") -> list[Doubt]:
    """Whether a process of the generator took near all of a core, by each one's share of it."""
    most = max(busy, default=0.0)
    if seconds < _JUDGED_S or most <= _BUSY_TOLD:
        return []
    text = (
        f"The load generator was busy {most:.0%} of a core: the endpoint may be faster than this shows. "
        f"Ask for less, or run several generators.{advice}"
    )
    if most > _BUSY_REFUSED:
        return [Doubt("generator_saturated", text, refuses=True)]
    return [Doubt("generator_busy", text)]


def about_lag(lag: Summary | None, metrics: ServingMetrics, *, code: str, what: str) -> list[Doubt]:
    """Whether the generator was late by more than a tenth of what it measured.

    Args:
        lag: how late it was, in seconds.
        metrics: the latencies that it measured.
        code: of the doubt.
        what: was late, in words.
    """
    if lag is None or lag.p99 <= _LAG_S:
        return []
    measured = [
        summary.p50 for summary in (metrics.ttft, metrics.itl, metrics.e2el) if summary and summary.p50 > 0
    ]
    least = min(measured, default=0.0)
    judged = lag.count >= _JUDGED_LAGS or lag.count * lag.mean >= _JUDGED_LAGGED_S
    refuses = judged and lag.p90 > max(_LAG_S, _LAG_SHARE * least)
    text = f"{what}: p90 {lag.p90 * 1000:.1f} ms, p99 {lag.p99 * 1000:.1f} ms" + (
        f", against a latency of {least * 1000:.1f} ms: latencies show the meter too." if refuses else "."
    )
    return [Doubt(code, text, refuses)]


def about_clock(jump: float, seconds: float) -> list[Doubt]:
    """Whether the clock of the day was set, or the machine slept.

    Args:
        jump: seconds by which the clock of the day went ahead of the monotonic one, or fell behind it.
        seconds: how long the run was.
    """
    if abs(jump) <= max(_JUMP_S, _JUMP_SHARE * seconds):
        return []
    text = (
        f"The clock jumped by {jump:+.1f} s during the run: it was set, or the machine was suspended. "
        "Measure again."
    )
    return [Doubt("clock_jumped", text, refuses=True)]
