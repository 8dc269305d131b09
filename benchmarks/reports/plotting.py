"""Drawings as SVG, by matplotlib: text stays text, and a page can set every colour.

Owns the look. Matplotlib is loaded with this module, which takes a second: import it where something is
drawn. Must not know results or pages.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Ticked
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.reports.overlay import Drawing, Series
from benchmarks.reports.result import Axis, Line

WIDE: Final = 6.0
NARROW: Final = 3.7
"""Inches, at 72 points each: for a screen or a sheet, and for a phone."""
_HEIGHT: Final = 3.4
_BAR: Final = 0.24
_INK, _FAINT, _GROUND = "#24292f", "#d0d7de", "#ffffff"
# Okabe and Ito's colours, which people with any colour vision tell apart; dashes and hatches say it again.
_SERIES: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8250df")
_DASHES: Final[tuple[tuple[float, ...], ...]] = ((), (8, 3.2), (1.6, 2.4), (9.6, 3.2, 1.6, 3.2))
_SHIFT: Final = 5.6
"""Of the next result's dashes: where lines are equal they lie in the gaps of those below."""
_MARKERS: Final = ("o", "s", "^", "D")
_WIDTH, _MARKER, _WIDER, _WIDEST = 1.6, 4.0, 2.2, 6.6
_HATCHES: Final = ("", "///", "...", "xxx")
COLOURS: Final[Mapping[str, str]] = {
    _INK: "plot-ink",
    _FAINT: "plot-faint",
    _GROUND: "plot-ground",
    **{colour: f"plot-{number}" for number, colour in enumerate(_SERIES)},
}
"""Each colour of a drawing, and the CSS variable under which a page may set another."""
_SETTINGS: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # names come from files
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": _FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
    "hatch.color": _GROUND,
    "lines.linewidth": _WIDTH,
    "lines.scale_dashes": False,  # of whatever width, a line's dash is the same
    "legend.handlelength": 2.6,
}


def svg(drawing: Drawing, *, width: float = WIDE, ground: bool = False) -> str:
    """The drawing as an SVG element, the same each time; `ground` puts it on white, for a file of its own."""
    with mpl.rc_context({**_SETTINGS, "svg.hashsalt": f"plot {drawing.key}"}):
        figure = Figure(figsize=(width, _height(drawing)), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        _DRAW[drawing.kind](axes, drawing)
        _marks(axes, drawing)
        _legend(figure, axes, narrow=width < WIDE)
        written = io.BytesIO()
        about = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(
            written, format="svg", metadata=about, facecolor=_GROUND if ground else "none", edgecolor="none"
        )
    return _element(written.getvalue().decode())


def inline(drawing: Drawing, *, name: str, width: float = WIDE) -> str:
    """The same for an HTML page: ids of its own by `name`, colours by the page's variables."""
    text = svg(drawing, width=width)
    for colour, variable in COLOURS.items():
        text = re.sub(rf"{colour}\b", f"var(--{variable}, {colour})", text, flags=re.IGNORECASE)
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", text)
    return text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _element(document: str) -> str:
    """Without the XML declaration and the document type, which a page cannot hold."""
    return document[document.index("<svg") :].rstrip() + "\n"


def _height(drawing: Drawing) -> float:
    if drawing.kind != "bars":
        return _HEIGHT + 0.2 * min(len(drawing.series), 8)
    return 1.0 + _BAR * sum(len(series.line.x) for series in drawing.series) + 0.12 * len(drawing.x.labels)


_Look = tuple[str, int]
"""A colour, and which dash, hatch or marker says it again."""


def _colour(series: Series, drawing: Drawing) -> _Look:
    """A colour for each result and a dash for each of its lines; a colour for each line of a result alone."""
    owners = {each.owner for each in drawing.series}
    colour, dash = (series.owner, series.place) if len(owners) > 1 else (series.place, 0)
    return _SERIES[colour % len(_SERIES)], dash + colour // len(_SERIES)


def _wider(series: Series, drawing: Drawing) -> float:
    """By how many points a line is wider than the last one: it is seen where all of them are equal."""
    above = len({each.owner for each in drawing.series if each.owner > series.owner})
    results = len({each.owner for each in drawing.series})
    return above * min(_WIDER, _WIDEST / max(1, results - 1))


def _lines(axes: Axes, drawing: Drawing) -> None:
    for series in drawing.series:
        colour, dash = _colour(series, drawing)
        line, wider = series.line, _wider(series, drawing)
        axes.plot(
            line.x,
            line.y,
            label=_label(series.name),
            color=colour,
            linestyle=(_SHIFT * series.owner, _DASHES[dash % len(_DASHES)] or None),
            marker=_MARKERS[dash % len(_MARKERS)] if drawing.kind == "curve" else None,
            linewidth=_WIDTH + wider,
            markersize=_MARKER + wider,
        )
        if line.low:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    _scale(axes, drawing)


def _scale(axes: Axes, drawing: Drawing) -> None:
    axes.set_xlabel(_axis(drawing.x))
    axes.set_ylabel(_axis(drawing.y))
    if drawing.x.log and any(x > 0 for each in drawing.series for x in each.line.x):
        axes.set_xscale("log", nonpositive="mask")
        _log_ticks(axes.xaxis)
    if drawing.y.log and any(y > 0 for each in drawing.series for y in each.line.y):
        axes.set_yscale("log", nonpositive="mask")
        _log_ticks(axes.yaxis)
    if drawing.kind == "cdf":
        axes.set_ylim(0, 1.01)
    elif not drawing.y.log:
        axes.set_ylim(bottom=min(0.0, *_ends(drawing.series)))


def _log_ticks(axis: Ticked) -> None:
    """As plain numbers: matplotlib's own are formulas."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _ends(series: Sequence[Series]) -> list[float]:
    return [value for each in series for value in (*each.line.y, *each.line.low)] or [0.0]


def _bars(axes: Axes, drawing: Drawing) -> None:
    """Lying, since their labels are words: the first on top, and those of one label side by side."""
    labels, count = drawing.x.labels, max(len(drawing.series), 1)
    thick = 0.8 / count if count > 1 else 0.6
    # Where an axis is logarithmic there is no nothing from which a bar could begin.
    draw = _points if drawing.y.log else _lengths
    for number, series in enumerate(drawing.series):
        places = [x + (number - (count - 1) / 2) * thick for x in series.line.x]
        draw(axes, series, places, 0.92 * thick, _colour(series, drawing))
    axes.set_yticks(range(len(labels)), [_label(label) for label in labels])
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.invert_yaxis()
    axes.set_xlabel(_axis(drawing.y))
    if drawing.y.log:
        axes.set_xscale("log", nonpositive="mask")
        _log_ticks(axes.xaxis)


def _lengths(axes: Axes, series: Series, places: Sequence[float], thick: float, look: _Look) -> None:
    colour, hatch = look
    axes.barh(
        places,
        series.line.y,
        height=thick,
        label=_label(series.name),
        color=colour,
        hatch=_HATCHES[hatch % len(_HATCHES)],
        xerr=_reach(series.line),
        error_kw={"ecolor": _INK, "elinewidth": 1.1, "capsize": 2.5},
    )


def _points(axes: Axes, series: Series, places: Sequence[float], _: float, look: _Look) -> None:
    colour, marker = look
    axes.errorbar(
        series.line.y,
        places,
        xerr=_reach(series.line),
        label=_label(series.name),
        fmt=_MARKERS[marker % len(_MARKERS)],
        markersize=6,
        capsize=3,
        color=colour,
    )


def _reach(line: Line) -> list[list[float]] | None:
    """How far the interval goes to either side of each value."""
    if not line.low:
        return None
    return [
        [max(0.0, value - low) for value, low in zip(line.y, line.low, strict=True)],
        [max(0.0, high - value) for value, high in zip(line.y, line.high, strict=True)],
    ]


_DRAW: Final[Mapping[str, Callable[[Axes, Drawing], None]]] = {
    "cdf": _lines,
    "curve": _lines,
    "timeline": _lines,
    "bars": _bars,
}


def _marks(axes: Axes, drawing: Drawing) -> None:
    for mark in drawing.marks:
        owners = len({each.owner for each in drawing.marks}) > 1
        colour = _SERIES[mark.owner % len(_SERIES)] if owners else _INK
        # Where two results have the same mark, their dashes take turns and their words stand on either side.
        axes.axvline(mark.at, color=colour, linewidth=0.9, linestyle=(2 * mark.owner, (2, 2)))
        axes.annotate(
            _label(mark.name),
            (mark.at, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-11 if mark.owner % 2 else 3, -3),
            textcoords="offset points",
            rotation=90,
            va="top",
            fontsize=8,
            color=colour,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": _GROUND, "edgecolor": "none", "alpha": 0.8},
        )


def _legend(figure: Figure, axes: Axes, *, narrow: bool) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if any(labels) and (len(labels) > 1 or labels[0].strip()):
        longest = max(len(label) for label in labels)
        columns = 1 if narrow else max(1, min(len(labels), 68 // (longest + 8)))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns)


def _axis(axis: Axis) -> str:
    return _label(f"{axis.name} ({axis.unit})" if axis.name and axis.unit else axis.name or axis.unit)


def _label(text: str) -> str:
    """Matplotlib takes a name with an underscore before it for one that is not shown."""
    return text.lstrip("_") or " "
