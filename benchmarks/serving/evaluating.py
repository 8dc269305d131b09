"""From a run to what is told of it: the steady part, its figures with intervals, goodput, doubts.

Pure. Owns in which order the figures' modules are asked, and which percentiles are told. Must not know how a
run came about (it may be read from a file) or how a result is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.figures import doubts
from benchmarks.figures.blocks import (
    LEAST_BLOCKS,
    MOST_BLOCKS,
    draw,
    mean_interval,
    percentile_intervals,
    ratio_interval,
)
from benchmarks.figures.doubts import Doubt, Stalls, find_stalls
from benchmarks.figures.goodput import Slo, good
from benchmarks.figures.metrics import ServingMetrics, e2el, measure, measure_part, tpot, ttft
from benchmarks.figures.parts import Part, answers_by_window, tokens_by_window, window_of
from benchmarks.figures.statistics import Interval, Summary, least_samples, percentiles, summarise
from benchmarks.figures.steady import Steadiness, Verdict, find_steady, whole_of
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.machine.watch import Watched

USUAL_PERCENTS: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
_ALWAYS: Final = 50.0
_REQUESTS_A_BLOCK: Final = 5

_VALUES: Final[dict[str, Callable[[Sample], Sequence[float]]]] = {
    "ttft": lambda sample: _some(ttft(sample)),
    "itl": lambda sample: sample.gaps,
    "tpot": lambda sample: _some(tpot(sample)),
    "e2el": lambda sample: _some(e2el(sample)),
}
LATENCIES: Final = tuple(_VALUES)


def values_of(latency: str, sample: Sample) -> Sequence[float]:
    """What a request adds to a kind of latency: one value, its gaps, or nothing; in seconds."""
    return _VALUES[latency](sample)


def _some(value: float | None) -> Sequence[float]:
    return () if value is None else (value,)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a run is judged.

    Attributes:
        slos: what a good request keeps; none, and there is no goodput.
        max_errors: share of requests that may fail.
        steady: tell figures of the steady part only, where there is one.
        percents: percentiles to tell whatever the number of samples; none, and those are told that have
            enough.
    """

    slos: tuple[Slo, ...] = ()
    max_errors: float = 0.01
    steady: bool = True
    percents: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Meter:
    """What is known of the generator: the busy share of a core of each process, its loop and clocks."""

    busy: tuple[float, ...] = ()
    watched: Watched = field(default_factory=Watched)


@dataclass(frozen=True, slots=True)
class Told:
    """One figure: what was found, with an interval where the run has blocks enough. Times in seconds."""

    value: float
    interval: Interval | None = None

    @property
    def found(self) -> Interval | float:
        """The interval, or else the bare value."""
        return self.interval or self.value


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is told of a run.

    Attributes:
        metrics: of the part that figures are told of.
        latencies: for each kind of latency, `mean` and percentiles such as `p99.9`, in seconds.
        rates: requests_per_s, output_tokens_per_s, and with objectives goodput and good_share.
        blocks: of which the intervals are made; 0 where the run is too short for any.
        left_out: percentiles for which there were too few requests.
        slos: what a good request kept.
    """

    steadiness: Steadiness
    metrics: ServingMetrics
    latencies: dict[str, dict[str, Told]]
    rates: dict[str, Told]
    blocks: int
    left_out: tuple[float, ...]
    stalls: Stalls
    doubts: tuple[Doubt, ...]
    slos: tuple[Slo, ...] = ()

    @property
    def of_answered(self) -> tuple[float, ...]:
        """Percentiles that would be another number, or none, if failures were waits without an end.

        It is so where more requests failed than lie beyond the percentile: it is one of the answered alone.
        """
        metrics = self.metrics
        asked = metrics.completed + metrics.failed
        told = {float(name[1:]) for figures in self.latencies.values() for name in figures if name != "mean"}
        return tuple(
            percent for percent in sorted(told) if metrics.failed * 100 > round(100 - percent, 6) * asked
        )


def evaluate(
    run: Run,
    rules: Rules,
    *,
    open_loop: bool,
    ignore_eos: bool,
    seed: int = 0,
    meter: Meter | None = None,
) -> Evaluation:
    """Judge a run and take its figures.

    Args:
        run: with all its samples.
        rules: how to judge it.
        open_loop: whether requests came by a schedule.
        ignore_eos: whether answers were asked to have their full length.
        seed: of the intervals' draws.
        meter: what is known of the generator, if anything.
    """
    whole = whole_of(run)
    steadiness = (
        find_steady(run, open_loop=open_loop) if rules.steady else Steadiness(Verdict.UNASKED, whole, whole)
    )
    metrics = measure(run) if steadiness.is_whole else measure_part(run, steadiness.part)
    figures = _Figures(run, steadiness.part, rules, metrics, seed=seed)
    stalls = find_stalls(run.samples)
    return Evaluation(
        steadiness=steadiness,
        metrics=metrics,
        latencies=figures.latencies(),
        rates=figures.rates(),
        blocks=figures.blocks,
        left_out=() if rules.percents else _too_few(metrics.e2el, USUAL_PERCENTS),
        stalls=stalls,
        slos=rules.slos,
        doubts=(
            *_about_run(run, rules, metrics, ignore_eos=ignore_eos),
            *doubts.about_stalls(stalls),
            *(_about_meter(run, metrics, meter) if meter else ()),
        ),
    )


def _about_run(run: Run, rules: Rules, metrics: ServingMetrics, *, ignore_eos: bool) -> list[Doubt]:
    return [
        *doubts.about_errors(run.samples, rules.max_errors),
        *doubts.about_answers(run.samples, ignore_eos=ignore_eos),
        *doubts.about_chunks(run.samples),
        *doubts.about_percentiles(metrics.e2el, rules.percents),
        *doubts.about_lag(
            metrics.send_lag, metrics, code="sent_late", what="Requests left after they were due"
        ),
    ]


def _about_meter(run: Run, metrics: ServingMetrics, meter: Meter) -> list[Doubt]:
    seconds = run.ended_at - run.began_at
    loop = summarise(meter.watched.lags)
    return [
        *doubts.about_generator(meter.busy, seconds),
        *doubts.about_lag(loop, metrics, code="generator_late", what="The generator's own loop woke late"),
        *doubts.about_clock(meter.watched.clock_jump_s, seconds),
    ]


def _too_few(summary: Summary | None, percents: Sequence[float]) -> tuple[float, ...]:
    count = summary.count if summary else 0
    return tuple(percent for percent in percents if percent != _ALWAYS and count < least_samples(percent))


class _Figures:
    """The figures of one part of a run."""

    def __init__(self, run: Run, part: Part, rules: Rules, metrics: ServingMetrics, *, seed: int) -> None:
        self._samples = run.samples
        self._part = part
        self._rules = rules
        self._metrics = metrics
        self._begun = [sample for sample in part.begun_in(run.samples) if sample.error is None]
        self.blocks = _block_count(part, metrics.e2el)
        self._draws = draw(self.blocks, seed=seed) if self.blocks else None

    def latencies(self) -> dict[str, dict[str, Told]]:
        summaries = {name: getattr(self._metrics, name) for name in LATENCIES}
        return {name: self._latency(name, found) for name, found in summaries.items() if found is not None}

    def _latency(self, name: str, summary: Summary) -> dict[str, Told]:
        blocks = self._by_block(_VALUES[name])
        percents = self._rules.percents or tuple(
            percent for percent in USUAL_PERCENTS if percent not in _too_few(summary, USUAL_PERCENTS)
        )
        mean = mean_interval(blocks, self._draws) if self._draws else None
        intervals = percentile_intervals(blocks, percents, self._draws) if self._draws else {}
        found = percentiles([value for block in blocks for value in block], percents)
        told = {
            f"p{percent:g}": Told(value, intervals.get(percent))
            for percent, value in zip(percents, found, strict=True)
        }
        return {"mean": Told(summary.mean, mean)} | told

    def _by_block(self, values: Callable[[Sample], Sequence[float]]) -> list[list[float]]:
        borders = self._part.borders(max(1, self.blocks))
        blocks: list[list[float]] = [[] for _ in range(max(1, self.blocks))]
        for sample in self._begun:
            blocks[window_of(borders, sample.started_at)].extend(values(sample))
        return blocks

    def rates(self) -> dict[str, Told]:
        tokens = self._windows(tokens_by_window)
        answers = self._windows(answers_by_window)
        told = {
            "requests_per_s": self._rate(self._metrics.requests_per_s, answers),
            "output_tokens_per_s": self._rate(self._metrics.output_tokens_per_s, tokens),
        }
        return told | (self._goodput() if self._rules.slos else {})

    def _goodput(self) -> dict[str, Told]:
        slos, part = self._rules.slos, self._part
        kept = answers_by_window(self._samples, part, max(1, self.blocks), lambda sample: good(sample, slos))
        rate = sum(kept) / part.seconds if part.seconds > 0 else 0.0
        begun = part.begun_in(self._samples)  # with the failures, which are never good
        share = sum(good(sample, slos) for sample in begun) / len(begun) if begun else 0.0
        return {"goodput": self._rate(rate, kept), "good_share": Told(share)}

    def _windows(self, count: Callable[[Sequence[Sample], Part, int], list[float]]) -> list[float]:
        return count(self._samples, self._part, max(1, self.blocks))

    def _rate(self, value: float, amounts: Sequence[float]) -> Told:
        seconds = [self._part.seconds / max(1, self.blocks)] * len(amounts)
        return Told(value, ratio_interval(amounts, seconds, self._draws) if self._draws else None)


def _block_count(part: Part, latency: Summary | None) -> int:
    # A block shorter than a request would leave the next one the request's other half.
    if latency is None or part.seconds <= 0:
        return 0
    by_time = part.seconds / latency.p50 if latency.p50 > 0 else MOST_BLOCKS
    count = int(min(MOST_BLOCKS, latency.count / _REQUESTS_A_BLOCK, by_time))
    return count if count >= LEAST_BLOCKS else 0
