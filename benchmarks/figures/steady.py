"""Whether a run was steady, and from when on: pure.

A run is looked at in windows of equal time between its first and its last request's beginning: after that the
load ebbs away. In each the requests under way, the tokens that came and the median wait are taken. Windows at
the beginning that are unlike the second half of the run are its warm-up. What is left must not trend: where
the requests under way and their wait grow to the end of an open loop, more comes than the endpoint can serve,
and its latencies say only how long the run was.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Final

from benchmarks.figures.metrics import e2el, ttft
from benchmarks.figures.parts import Part, in_flight_by_window, tokens_by_window, window_of
from benchmarks.figures.statistics import median
from benchmarks.figures.trend import kendall_z, leading_outliers, rise
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run

_MOST_WINDOWS: Final = 40
_LEAST_WINDOWS: Final = 10
_REQUESTS_A_WINDOW: Final = 5
_SURE: Final = 2.6
"""Of a trend, in standard deviations: 1 % by chance."""
_WORTH_A_WORD: Final = 0.25
"""A rise or fall by less than this share of the median is no trend that matters."""


class Verdict(StrEnum):
    """What can be said of a run.

    It is short where it has too few requests to tell, or all of them began at once; unasked where nobody
    wanted to know.
    """

    STEADY = "steady"
    SHORT = "short"
    UNASKED = "unasked"
    UNSETTLED = "unsettled"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Steadiness:
    """What was found, and the part whose figures are told: the steady one, or else the whole run.

    Attributes:
        backlog: requests by which those under way grew while the load lasted; 0 unless overloaded.
    """

    verdict: Verdict
    part: Part
    whole: Part
    backlog: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether figures are of the whole run, from its beginning to the end of its last request."""
        return self.part == self.whole

    @property
    def warmup_s(self) -> float:
        """Seconds at the beginning that are left out."""
        return self.part.began_at - self.whole.began_at


@dataclass(frozen=True, slots=True)
class _Series:
    in_flight: Sequence[float]
    tokens: Sequence[float]
    wait: Sequence[float | None]

    def warmup(self) -> int:
        return max(map(leading_outliers, (self.in_flight, self.tokens, self.wait)))

    def after(self, cut: int) -> "_Series":
        return _Series(self.in_flight[cut:], self.tokens[cut:], self.wait[cut:])

    @property
    def waits(self) -> list[float]:
        return [value for value in self.wait if value is not None]


def whole_of(run: Run) -> Part:
    """All of a run, as its throughput is usually told of."""
    return Part(run.began_at, run.ended_at)


def find_steady(run: Run, *, open_loop: bool) -> Steadiness:
    """Judge a run.

    Args:
        run: with all its samples, failures too.
        open_loop: whether requests came by a schedule, however they were answered.
    """
    whole = whole_of(run)
    loaded = Part(run.began_at, max((sample.started_at for sample in run.samples), default=run.began_at))
    count = min(_MOST_WINDOWS, len(run.samples) // _REQUESTS_A_WINDOW)
    if count < _LEAST_WINDOWS or loaded.seconds <= 0:
        return Steadiness(Verdict.SHORT, whole, whole)
    series = _look(run.samples, loaded, count)
    if len(series.waits) < _LEAST_WINDOWS:
        return Steadiness(Verdict.SHORT, whole, whole)
    cut = series.warmup()
    if open_loop and (backlog := _backlog(series, len(run.samples))):
        return Steadiness(Verdict.OVERLOADED, whole, whole, backlog)
    if cut > count // 2 or _trends(series.after(cut)):
        return Steadiness(Verdict.UNSETTLED, whole, whole)
    began_at = loaded.began_at + loaded.seconds * cut / count
    return Steadiness(Verdict.STEADY, Part(began_at, loaded.ended_at), whole)


def _look(samples: Sequence[Sample], loaded: Part, count: int) -> _Series:
    borders = loaded.borders(count)
    waits: list[list[float]] = [[] for _ in range(count)]
    for sample in samples:
        if (wait := _wait(sample)) is not None:
            waits[window_of(borders, sample.started_at)].append(wait)
    return _Series(
        in_flight_by_window(samples, loaded, count),
        tokens_by_window(samples, loaded, count),
        [median(values) if values else None for values in waits],
    )


def _wait(sample: Sample) -> float | None:
    if sample.error is not None:
        return None
    first = ttft(sample)
    return e2el(sample) if first is None else first


def _backlog(series: _Series, requests: int) -> float:
    # At exactly its capacity a queue wanders by about the root of what came and went; chance goes no further.
    grown = rise(series.in_flight)
    surely = kendall_z(series.in_flight) > _SURE and kendall_z(series.waits) > _SURE
    return grown if surely and grown > sqrt(2 * requests) and _matters(series.waits) else 0.0


def _trends(series: _Series) -> bool:
    return any(
        abs(kendall_z(values)) > _SURE and _matters(values)
        for values in (series.in_flight, series.tokens, series.waits)
    )


def _matters(values: Sequence[float]) -> bool:
    middle = median(values)
    return abs(rise(values)) > _WORTH_A_WORD * middle if middle > 0 else rise(values) != 0
