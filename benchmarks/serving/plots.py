"""What can be drawn of a serving run: distributions of its latencies, and its course over time.

Pure. Owns the plots' keys and resolution; the drawing is others' matter.
"""

from collections.abc import Sequence
from math import ceil
from typing import Final

from benchmarks.figures.metrics import e2el, ttft
from benchmarks.figures.parts import Part, in_flight_by_window, tokens_by_window, window_of
from benchmarks.figures.statistics import median, percentiles
from benchmarks.figures.steady import Steadiness
from benchmarks.generator.driving import Run
from benchmarks.reports.result import Axis, Line, Plot
from benchmarks.serving.evaluating import values_of

_CDF_POINTS: Final = 100
_MOST_WINDOWS: Final = 600
_LEAST_WINDOWS: Final = 20
_SECONDS: Final = Axis(name="time", unit="s")
_NAMES: Final = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2el": "E2EL"}


def plots(run: Run, steadiness: Steadiness) -> list[Plot]:
    """All plots of a run; those over time mark where the steady part begins and ends."""
    if not run.samples:
        return []
    return [*_distributions(run, steadiness.part), *_timelines(run, steadiness)]


def _distributions(run: Run, part: Part) -> list[Plot]:
    good = [sample for sample in part.begun_in(run.samples) if sample.error is None]
    lines = [
        _cdf(_NAMES[kind], values)
        for kind in _NAMES
        if (values := [value for sample in good for value in values_of(kind, sample)])
    ]
    if not lines:
        return []
    axis = Axis(name="latency", unit="ms", log=True)
    share = Axis(name="share of samples")
    return [Plot(key="latency_cdf", title="Latencies", kind="cdf", x=axis, y=share, lines=lines)]


def _cdf(name: str, values: Sequence[float]) -> Line:
    shares = [number / _CDF_POINTS for number in range(_CDF_POINTS + 1)]
    # The slowest hundredth is where systems differ: it gets as many points again.
    shares = sorted({*shares, *(1 - 0.01 * (1 - share) for share in shares)})
    moments = [round(value * 1000, 4) for value in percentiles(values, [share * 100 for share in shares])]
    return Line(name=name, x=moments, y=[round(share, 6) for share in shares])


def _timelines(run: Run, steadiness: Steadiness) -> list[Plot]:
    whole = steadiness.whole
    if whole.seconds <= 0:
        return []
    count = max(_LEAST_WINDOWS, min(_MOST_WINDOWS, ceil(whole.seconds)))
    width = whole.seconds / count
    middles = [(number + 0.5) * width for number in range(count)]
    tokens = [amount / width for amount in tokens_by_window(run.samples, whole, count)]
    under_way = in_flight_by_window(run.samples, whole, count)
    marks = _marks(steadiness)
    return [
        _timeline(
            "tokens_timeline",
            "Output tokens per second",
            Axis(name="tokens/s"),
            [Line(name="tokens/s", x=middles, y=tokens)],
            marks,
        ),
        _timeline(
            "in_flight_timeline",
            "Requests under way",
            Axis(name="requests"),
            [Line(name="in flight", x=middles, y=under_way)],
            marks,
        ),
        *_waits(run, whole, count, marks),
    ]


def _timeline(key: str, title: str, y: Axis, lines: list[Line], marks: dict[str, float]) -> Plot:
    return Plot(key=key, title=title, kind="timeline", x=_SECONDS, y=y, lines=lines, marks=marks)


def _waits(run: Run, whole: Part, count: int, marks: dict[str, float]) -> list[Plot]:
    borders, width = whole.borders(count), whole.seconds / count
    streamed = any(sample.first_token_at is not None for sample in run.samples)
    seen: dict[int, list[float]] = {}
    for sample in run.samples:
        value = ttft(sample) if streamed else e2el(sample)
        if sample.error is None and value is not None:
            seen.setdefault(window_of(borders, sample.started_at), []).append(value * 1000)
    if not seen:
        return []
    at = [(window + 0.5) * width for window in sorted(seen)]
    lines = [
        Line(name=name, x=at, y=[of(seen[window]) for window in sorted(seen)])
        for name, of in (("median", median), ("slowest", max))
    ]
    name = "TTFT" if streamed else "E2EL"
    title = f"{name} by when the request began"
    y = Axis(name=name, unit="ms", log=True)
    return [_timeline("wait_timeline", title, y, lines, marks)]


def _marks(steadiness: Steadiness) -> dict[str, float]:
    if steadiness.is_whole:
        return {}
    part, began_at = steadiness.part, steadiness.whole.began_at
    return {"steady from": part.began_at - began_at, "steady until": part.ended_at - began_at}
