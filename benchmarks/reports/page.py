"""A result as a page in a terminal, the same for every benchmark.

Owns the tables of figures, and how refusals and remarks are said. Must not know what was measured.
"""

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.figures.bounds import RATIO, Verdict
from benchmarks.reports.result import Group, Limit, Result, Value

_COLOURS: Final = {Verdict.KEPT: "green", Verdict.MISSED: "red", Verdict.UNCLEAR: "yellow"}


def show(console: Console, result: Result) -> None:
    """Show the figures, then what a reader must know of them; a refusal comes first and last."""
    if result.refusals:
        console.print("[bold red]Not to be believed[/], for the reasons below.")
    for group in sorted(result.groups, key=lambda group: group.detail):
        if group.figures:
            console.print(_table(group))
    for remark in result.remarks:
        console.print(f"[yellow]{escape(remark.text)}[/]", highlight=False)
    if result.made.quick:
        console.print(
            "[yellow]Quick: this shows that the command works; its rounds are too few for figures.[/]"
        )
    if result.interrupted:
        console.print("[yellow]Interrupted: this is what was complete by then.[/]")
    for refusal in result.refusals:
        console.print(
            f"[red]Not to be believed ({escape(refusal.code)}):[/] {escape(refusal.text)}", highlight=False
        )


def _table(group: Group) -> Table:
    table = Table(title=escape(group.title), title_justify="left")
    table.add_column("", overflow="fold")  # where a page is narrow, names break and numbers stay whole
    columns = [*group.sides, "found", "95 %"]
    bounded = any(figure.bound for figure in group.figures)
    for name in (*map(escape, columns), *(("bound", "") if bounded else ())):
        table.add_column(name, justify="right", no_wrap=True)
    for figure in group.figures:
        sides = (figure.direct, figure.via) if group.sides else ()
        table.add_row(
            escape(figure.name),
            *map(escape, sides),
            *_found(figure),
            *(_judged(figure.bound) if bounded else ()),
        )
    return table


def _found(figure: Value) -> tuple[str, str]:
    if figure.value is None:
        return "-", ""
    return escape(f"{number(figure.value, figure.unit)} {figure.unit}".rstrip()), interval(figure)


def interval(figure: Value) -> str:
    """From where to where; nothing where there is none, or it is of one round."""
    if figure.low is None or figure.high is None or len(figure.values) == 1:
        return ""
    return f"{number(figure.low, figure.unit)} to {number(figure.high, figure.unit)}"


def number(value: float, unit: str) -> str:
    """A value as people read it: three digits, for a ratio three after the point, a count as it is."""
    if unit == RATIO:
        return f"{value:.3f}"
    if not unit and value.is_integer():
        return f"{value:,.0f}"
    digits = max(0, 3 - len(f"{abs(value):.0f}")) if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _judged(bound: Limit | None) -> Sequence[str]:
    if bound is None:
        return "", ""
    told = f"[{_COLOURS[Verdict(bound.verdict)]}]{bound.verdict}[/]" if bound.verdict else ""
    return f"{'>=' if bound.at_least else '<='} {bound.value:g}", told
