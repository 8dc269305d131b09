"""A comparison as a page in a terminal, and as Markdown for a review.

Owns the columns and the words. Must not know the statistics.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.reports.comparing import Change, Comparison, Row, Verdict
from benchmarks.reports.page import number
from benchmarks.reports.words import plain

COLUMNS: Final = ("figure", "A", "B", "change", "95 %", "verdict")
_COLOURS: Final = {
    Verdict.BETTER: "bold green",
    Verdict.WORSE: "bold red",
    Verdict.DIFFERENT: "bold yellow",
    Verdict.SAME: "default",
    Verdict.UNTOLD: "dim",
}


def show(console: Console, found: Comparison) -> None:
    """Show what keeps the two apart first, then the figures, then the sum of it."""
    for warning in found.warnings:
        colour = "red" if warning.code == "refused" else "yellow"
        console.print(f"[{colour}]{escape(warning.text)}[/]", highlight=False)
    for title, rows in groupby(found.rows, key=lambda row: row.group):
        console.print(_table(title, list(rows)))
    for line in _afterwards(found):
        console.print(escape(line), highlight=False)


def markdown(found: Comparison, a: str, b: str) -> str:
    """The same, where `a` and `b` name the two results."""
    lines = [f"## {found.benchmark}: {plain(b)} against {plain(a)}", "", summary(found), ""]
    lines += [f"- **{warning.code}**: {plain(warning.text)}" for warning in found.warnings]
    for title, rows in groupby(found.rows, key=lambda row: row.group):
        lines += ["", f"### {plain(title)}", "", _line(COLUMNS), "| --- | ---: | ---: | ---: | ---: | --- |"]
        lines += [_line([plain(cell) for cell in _cells(row)]) for row in rows]
    return "\n".join([*lines, "", *_afterwards(found, summed_up=True)]) + "\n"


def summary(found: Comparison) -> str:
    """How many figures have which verdict."""
    counts = [(found.count(verdict), verdict.value) for verdict in Verdict]
    told = ", ".join(f"{count} {name}" for count, name in counts if count)
    margin = f", beyond a margin of {found.margin:.3g}" if found.margin else ""
    return f"{len(found.rows)} figures: {told}{margin}."


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in COLUMNS:
        is_word = name in {"figure", "verdict"}
        is_figure = name == "figure"
        justify: Literal["left", "right"] = "left" if is_word else "right"
        table.add_column("" if is_figure else name, justify=justify, no_wrap=not is_word)
    for row in rows:
        *cells, verdict = (escape(cell) for cell in _cells(row))
        table.add_row(*cells, f"[{_COLOURS[row.verdict]}]{verdict}[/]")
    return table


def _cells(row: Row) -> list[str]:
    verdict = f"{row.verdict.value}: {row.reason}" if row.reason else row.verdict.value
    return [row.name, _value(row.a, row.unit), _value(row.b, row.unit), *_change(row.change), verdict]


def _value(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{number(value, unit)} {unit}".rstrip()


def _change(change: Change | None) -> tuple[str, str]:
    if change is None:
        return "-", ""
    told = _value(change.value, change.unit)
    if change.low is None or change.high is None:
        return told, ""
    return told, f"{number(change.low, change.unit)} to {number(change.high, change.unit)}"


def _afterwards(found: Comparison, *, summed_up: bool = False) -> Iterator[str]:
    if not summed_up:
        yield summary(found)
    for name, keys in (("A", found.only_a), ("B", found.only_b)):
        if keys:
            yield f"Only in {name}: {', '.join(keys)}."
    yield (
        "Intervals are of each figure by itself; verdicts are corrected for the number of figures. Figures "
        "that are no ratio (x) also differ by what else the machine did at either time."
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
