"""Drawings in words and numbers, for those who do not see them.

Pure. Owns the sentence that stands for a drawing, and the table of what is behind it.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.reports.overlay import Drawing, Series
from benchmarks.reports.page import number
from benchmarks.reports.result import Axis, Line

_SHARES: Final = (0.5, 0.9, 0.99)
_MOST_POINTS: Final = 24
_KINDS: Final = {"cdf": "Distribution", "curve": "Curve", "timeline": "Over time", "bars": "Bars"}


@dataclass(frozen=True, slots=True)
class Numbers:
    """A table: the names of its columns, and its rows, the first cell of each being a name."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def sentence(drawing: Drawing) -> str:
    """What the drawing shows, in one line."""
    names = [series.name for series in drawing.series if series.name.strip()]
    lines = f" of {', '.join(names)}" if names else ""
    across = f" by {_axis(drawing.x)}" if drawing.x.name else ""
    return f"{_KINDS[drawing.kind]}: {drawing.y.name or 'value'}{_unit(drawing.y)}{across}{lines}."


def numbers(drawing: Drawing) -> Numbers:
    """What is behind it: percentiles of a distribution, the points of a curve, the length of bars."""
    return _NUMBERS[drawing.kind](drawing)


def _cdf(drawing: Drawing) -> Numbers:
    columns = (f"{_axis(drawing.x)}", *(f"p{share * 100:g}" for share in _SHARES))
    rows = [
        (series.name, *(_told(_reached(series.line, share), drawing.x) for share in _SHARES))
        for series in drawing.series
    ]
    return Numbers(columns, tuple(rows))


def _reached(line: Line, share: float) -> float | None:
    place = bisect_left(line.y, share)
    return line.x[place] if place < len(line.x) else None


def _timeline(drawing: Drawing) -> Numbers:
    columns = (_axis(drawing.y), "least", "mean", "most")
    rows = [
        (series.name, *(_told(of(series.line.y), drawing.y) for of in (min, _mean, max)))
        for series in drawing.series
        if series.line.y
    ]
    return Numbers(columns, tuple(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _points(drawing: Drawing) -> Numbers:
    """A row for each x. Of a long curve so many, evenly."""
    every = sorted({x for series in drawing.series for x in series.line.x})
    step = max(1, -(-len(every) // _MOST_POINTS))
    columns = (_axis(drawing.x), *_headings(drawing))
    rows = [
        (_told(x, drawing.x), *(_at(series.line, x, drawing.y) for series in drawing.series))
        for x in every[::step]
    ]
    return Numbers(columns, tuple(rows))


def _bars(drawing: Drawing) -> Numbers:
    rows = [
        (label, *(_at(series.line, float(place), drawing.y) for series in drawing.series))
        for place, label in enumerate(drawing.x.labels)
    ]
    return Numbers((drawing.x.name, *_headings(drawing)), tuple(rows))


_NUMBERS: Final[Mapping[str, Callable[[Drawing], Numbers]]] = {
    "cdf": _cdf,
    "timeline": _timeline,
    "curve": _points,
    "bars": _bars,
}


def _headings(drawing: Drawing) -> list[str]:
    def heading(series: Series) -> str:
        return f"{series.name or drawing.y.name}{_unit(drawing.y)}".strip()

    return [heading(series) for series in drawing.series]


def _at(line: Line, x: float, axis: Axis) -> str:
    if x not in line.x:
        return ""
    place = line.x.index(x)
    told = _told(line.y[place], axis)
    return f"{told} ({_told(line.low[place], axis)} to {_told(line.high[place], axis)})" if line.low else told


def _told(value: float | None, axis: Axis) -> str:
    return "-" if value is None else number(value, axis.unit)


def _axis(axis: Axis) -> str:
    return f"{axis.name}{_unit(axis)}".strip()


def _unit(axis: Axis) -> str:
    return f" ({axis.unit})" if axis.unit else ""
