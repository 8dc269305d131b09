"""Results as a document: one HTML page that needs nothing else, or Markdown with its plots beside it.

Owns what is told of each result and in which order: what makes it doubtful first. Must not know benchmarks.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Final

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from benchmarks.errors import PlotsMissing
from benchmarks.figures.bounds import Better
from benchmarks.reports.describing import Numbers, numbers, sentence
from benchmarks.reports.overlay import Drawing, Named, Row, Section, sections
from benchmarks.reports.page import interval, number
from benchmarks.reports.result import Limit, Value
from benchmarks.reports.words import plain

_BETTER: Final = {Better.LESS: "less", Better.MORE: "more", Better.NEITHER: ""}


@dataclass(frozen=True, slots=True)
class Plotted:
    """A drawing with its two pictures, wide and for a phone, and its words."""

    drawing: Drawing
    wide: Markup
    narrow: Markup
    text: str
    numbers: Numbers


def html(results: Sequence[Named]) -> str:
    """The page.

    Raises:
        PlotsMissing: the library that draws is not installed.
    """
    plotting = _plotting()

    def picture(drawing: Drawing, name: str, width: float) -> Markup:
        drawn = plotting.inline(drawing, name=name, width=width)
        return Markup(drawn)  # noqa: S704 - drawn here; matplotlib escapes the names it writes

    def plotted(section: Section, number: int) -> Iterator[Plotted]:
        for place, drawing in enumerate(section.drawings):
            wide = picture(drawing, f"p{number}-{place}-w", plotting.WIDE)
            narrow = picture(drawing, f"p{number}-{place}-n", plotting.NARROW)
            yield Plotted(drawing, wide, narrow, sentence(drawing), numbers(drawing))

    return (
        _environment()
        .get_template("report.html")
        .render(sections=sections(results), plotted=plotted, title=_title(results))
    )


def markdown(results: Sequence[Named], stem: str) -> tuple[str, Mapping[str, str]]:
    """The text, and the pictures it names, by the names of their files, which begin with `stem`.

    Raises:
        PlotsMissing: the library that draws is not installed.
    """
    plotting, pictures = _plotting(), dict[str, str]()

    def picture(section: Section, drawing: Drawing) -> str:
        told = re.sub(r"[^A-Za-z0-9.]+", "-", f"{section.benchmark}-{drawing.key}")
        name = f"{stem}-{len(pictures) + 1}-{told}.svg"
        pictures[name] = plotting.svg(drawing, ground=True)
        return name

    text = (
        _environment()
        .get_template("report.md")
        .render(sections=sections(results), picture=picture, title=_title(results))
    )
    return text, pictures


def _plotting() -> ModuleType:
    try:
        from benchmarks.reports import plotting  # noqa: PLC0415 - a second of imports that no other command needs
    except ImportError as error:
        raise PlotsMissing(
            f"a report needs matplotlib, which is not installed ({error}): pip install 'porten[plots]'"
        ) from error
    return plotting


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("benchmarks.reports"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= _FILTERS
    return environment


def _title(results: Sequence[Named]) -> str:
    return ", ".join(dict.fromkeys(each.result.benchmark for each in results))


def _found(value: Value | None) -> str:
    if value is None or value.value is None:
        return "-"
    return f"{number(value.value, value.unit)} {value.unit}".rstrip()


def _interval(value: Value | None) -> str:
    return "" if value is None else interval(value)


def _bound(limit: Limit | None) -> str:
    return "" if limit is None else f"{'≥' if limit.at_least else '≤'} {limit.value:g}"


def _verdict(value: Value | None) -> str:
    return "" if value is None or value.bound is None else value.bound.verdict or ""


def _is_bounded(rows: Sequence[Row]) -> bool:
    return any(row.shown.bound is not None for row in rows)


def _has_intervals(rows: Sequence[Row]) -> bool:
    return any(_interval(value) for row in rows for value in row.values)


def _setting(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


_FILTERS: Final[Mapping[str, Callable[..., object]]] = {
    "better": _BETTER.__getitem__,
    "bound": _bound,
    "found": _found,
    "has_intervals": _has_intervals,
    "interval": _interval,
    "is_bounded": _is_bounded,
    "numbers": numbers,
    "plain": plain,
    "sentence": sentence,
    "setting": _setting,
    "verdict": _verdict,
}
