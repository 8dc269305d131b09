"""How figures with bounds are shown and written. Must not know what they are figures of."""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks import report
from benchmarks.bounds import RATIO, Figure, Verdict
from benchmarks.statistics import Interval

_COLOURS: Final = {Verdict.KEPT: "green", Verdict.MISSED: "red", Verdict.UNCLEAR: "yellow"}
_SIDES: Final = ("engine", "node")
_COLUMNS: Final = ("found", "95 %", "bound", "")


def document(figures: Sequence[Figure]) -> list[report.Document]:
    """The figures for a JSON file, in the units they are shown in."""
    return [
        {
            "name": figure.name,
            "unit": figure.unit,
            "found": report.interval_document(figure.found)
            if isinstance(figure.found, Interval)
            else figure.found,
            "bound": {"limit": figure.bound.limit, "at_least": figure.bound.at_least},
            "verdict": figure.verdict,
        }
        for figure in figures
    ]


def show(console: Console, title: str, figures: Sequence[Figure], *, sides: Sequence[str] = _SIDES) -> None:
    """Show the figures as a table; without sides where nothing is measured against another."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in (*sides, *_COLUMNS):
        table.add_column(name, justify="right")
    for figure in figures:
        reached = (figure.direct, figure.via) if sides else ()
        table.add_row(figure.name, *reached, *_found(figure), *_judged(figure))
    console.print(table)


def _found(figure: Figure) -> tuple[str, str]:
    found, unit = figure.found, figure.unit
    if found is None:
        return "-", ""
    if not isinstance(found, Interval):
        return f"{_value(found, unit)} {unit}", ""
    return f"{_value(found.median, unit)} {unit}", f"{_value(found.low, unit)} to {_value(found.high, unit)}"


def _value(value: float, unit: str) -> str:
    return f"{value:.3f}" if unit == RATIO else f"{value:.2f}"


def _judged(figure: Figure) -> tuple[str, str]:
    verdict = figure.verdict
    told = f"[{_COLOURS[verdict]}]{verdict}[/]" if verdict is not None else ""
    return str(figure.bound), told
