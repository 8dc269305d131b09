"""What a reader must know of a serving run beside its figures: of which part they are, and what was left out.

Pure. Owns the words; the judgement is `figures.steady`'s.
"""

from collections.abc import Iterator
from typing import Final

from benchmarks.figures.blocks import LEAST_BLOCKS
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.figures.statistics import least_samples
from benchmarks.figures.steady import Steadiness, Verdict
from benchmarks.generator.driving import Run
from benchmarks.reports.result import Remark
from benchmarks.serving.evaluating import Evaluation

_BY_CHUNKS: Final = Remark(
    code="counted_by_chunks",
    text="The endpoint gave no usage for some answers: their tokens are counted by chunks, of which each may "
    "hold several tokens or none.",
)
_ONE_CHUNK: Final = Remark(
    code="one_chunk",
    text="Every answer came in one chunk: there are no gaps between chunks, and so no ITL.",
)
_NO_INTERVALS: Final = Remark(
    code="no_intervals",
    text=f"Too short for intervals: they take {LEAST_BLOCKS} stretches of time, each with five requests and "
    "longer than the median request. Measure longer.",
)
_NOT_STEADY: Final = Remark(
    code="not_steady",
    text="No steady part was found: the run still trends in its second half (see the timelines). Figures are "
    "of all of it; measure longer, or warm up longer.",
)
_UNKNOWN: Final = Remark(
    code="steady_unknown",
    text="Too few requests to tell a warm-up from a steady state: figures are of the whole run.",
)


def remarks(run: Run, evaluation: Evaluation) -> Iterator[Remark]:
    """What to know of a run."""
    metrics = evaluation.metrics
    if run.in_vain:
        yield _in_vain(run)
    if metrics.counted_by in {"chunks", "both"}:
        yield _BY_CHUNKS
    if evaluation.left_out and metrics.e2el:
        yield _left_out(evaluation.left_out, metrics.e2el.count)
    if evaluation.of_answered:
        yield _of_answered(evaluation.of_answered, metrics)
    if metrics.ttft and not metrics.itl:
        yield _ONE_CHUNK
    yield from _about_steadiness(run, evaluation.steadiness)
    if not evaluation.blocks:
        yield _NO_INTERVALS


def _in_vain(run: Run) -> Remark:
    last = run.samples[-1]
    text = (
        f"It ended early, after {run.ended_at - run.began_at:.1f} s: all of {len(run.samples):,} requests "
        f"failed, the last with {last.error}."
    )
    return Remark(code="ended_early", text=text)


def _left_out(percents: tuple[float, ...], count: int) -> Remark:
    names = ", ".join(f"p{percent:g} ({least_samples(percent):,})" for percent in percents)
    text = (
        f"{count:,} requests are too few for {names}. --percentile shows one all the same, in a result that "
        "is then not to be believed."
    )
    return Remark(code="percentiles_left_out", text=text)


def _of_answered(percents: tuple[float, ...], metrics: ServingMetrics) -> Remark:
    asked = metrics.completed + metrics.failed
    names = ", ".join(f"p{percent:g}" for percent in percents)
    text = (
        f"{metrics.failed:,} of {asked:,} requests failed, and are in no latency. Of all that was asked, "
        f"{names} would lie among them: what is told is of the answered alone."
    )
    return Remark(code="percentiles_of_answered", text=text)


def _about_steadiness(run: Run, found: Steadiness) -> Iterator[Remark]:
    if found.verdict is Verdict.STEADY:
        yield _steady_part(found)
    elif found.verdict is Verdict.OVERLOADED:
        yield _overload(run, found)
    elif found.verdict is Verdict.UNSETTLED:
        yield _NOT_STEADY
    elif found.verdict is Verdict.SHORT:
        yield _UNKNOWN


def _steady_part(found: Steadiness) -> Remark:
    text = (
        f"Figures are of the steady part: {found.part.seconds:.1f} s of {found.whole.seconds:.1f} s. Left "
        f"out are {found.warmup_s:.1f} s of warm-up, and the end, when no more requests began. Counts of "
        "requests and latencies are of those that began in it, rates of what came within it."
    )
    return Remark(code="steady_part", text=text)


def _overload(run: Run, found: Steadiness) -> Remark:
    seconds = max((sample.started_at for sample in run.samples), default=run.began_at) - run.began_at
    text = (
        f"Overload: {found.backlog:.0f} more requests were under way when the load of {seconds:.1f} s ended "
        "than when it began, and each waited longer than the one before. More comes than the endpoint can "
        "serve: its tokens/s are its capacity, and its latencies say only how long this run was."
    )
    return Remark(code="overload", text=text)
