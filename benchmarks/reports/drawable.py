"""Plots from what was measured, as results carry them.

Pure. Owns how many points a distribution is drawn by, and how figures become bars. Must not know how plots
are drawn.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from benchmarks.reports.result import Axis, Group, Line, Plot, Value

_POINTS: Final = 200

Labelled = Mapping[str, Value | None]
"""Figures by what stands beside their bars; none where nothing was measured."""


def cdf(name: str, values: Sequence[float]) -> Line:
    """The share of values up to each; of many, every so-manieth and both ends."""
    ordered = sorted(values)
    last = len(ordered) - 1
    places = sorted({round(step * last / (_POINTS - 1)) for step in range(_POINTS)} if ordered else ())
    return Line(
        name=name,
        x=[ordered[place] for place in places],
        y=[(place + 1) / len(ordered) for place in places],
    )


def bars(
    key: str, title: str, rows: Mapping[str, Labelled], *, name: str = "", log: bool = False
) -> Plot | None:
    """Figures of one unit as bars; `name` is what they tell. None where nothing of it was measured.

    Each of `rows` has a colour, and its figures stand by their labels.
    """
    told = {row: {label: each for label, each in of.items() if _has(each)} for row, of in rows.items()}
    every = [each for of in told.values() for each in of.values() if each is not None]
    if not every:
        return None
    labels = list(dict.fromkeys(label for of in told.values() for label in of))
    return Plot(
        key=key,
        title=title,
        kind="bars",
        x=Axis(name="", labels=labels),
        y=Axis(name=name, unit=every[0].unit, log=log),
        lines=[_bars(row, of, labels) for row, of in told.items() if of],
    )


def present(plots: Iterable[Plot | None]) -> list[Plot]:
    """Those that there are."""
    return [plot for plot in plots if plot is not None and plot.lines]


def by_key(groups: Iterable[Group]) -> dict[str, Value]:
    """Figures by their keys."""
    return {figure.key: figure for group in groups for figure in group.figures}


def _has(figure: Value | None) -> bool:
    return figure is not None and figure.value is not None


def _is_bounded(figure: Value) -> bool:
    return figure.low is not None and figure.high is not None and len(figure.values) != 1


def _bars(name: str, figures: Labelled, labels: Sequence[str]) -> Line:
    found = [(labels.index(label), figure) for label, figure in figures.items() if figure is not None]
    bounded = all(_is_bounded(figure) for _, figure in found)
    return Line(
        name=name,
        x=[float(place) for place, _ in found],
        y=[figure.value for _, figure in found if figure.value is not None],
        low=[figure.low for _, figure in found if figure.low is not None] if bounded else [],
        high=[figure.high for _, figure in found if figure.high is not None] if bounded else [],
    )
