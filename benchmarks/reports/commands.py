"""``porten-bench compare`` and ``porten-bench report``: their options, their help, and where they write.

Owns the exit codes of `compare`. Neither measures anything.
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from benchmarks.command import terminal
from benchmarks.command.options import Json
from benchmarks.command.outputs import STDOUT, check_apart
from benchmarks.command.settings import parse_share
from benchmarks.errors import BenchmarkError, SettingInvalid
from benchmarks.reports import compare_page, document
from benchmarks.reports.comparing import Comparison, Verdict, Wanted
from benchmarks.reports.comparing import compare as compare_results
from benchmarks.reports.overlay import named
from benchmarks.reports.result import read

FAILED: Final = 4
"""Exit code where a figure has a verdict that was not to be."""


class FailOn(StrEnum):
    """Verdicts with which `compare` can end in failure."""

    WORSE = "worse"
    DIFFERENT = "different"
    UNTOLD = "untold"


_FAILING: Final = {
    FailOn.WORSE: {Verdict.WORSE},
    FailOn.DIFFERENT: {Verdict.WORSE, Verdict.BETTER, Verdict.DIFFERENT},
    FailOn.UNTOLD: {Verdict.UNTOLD},
}

_Markdown = Annotated[
    str | None, typer.Option("--markdown", metavar="FILE", help="Write it as Markdown; - is stdout.")
]


def compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="What it is measured against.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="What may be better or worse.")],
    *,
    margin: Annotated[
        str, typer.Option(metavar="X%", help="A change up to this is none: 5% or 0.05.")
    ] = "0%",
    figure: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Keys to compare, such as '*ratio'; may be given more than once."
        ),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Absolute figures too where the machines are not the same.")
    ] = False,
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(help="End with exit code 4 on such a verdict; may be given more than once."),
    ] = None,
    json_file: Json = None,
    markdown: _Markdown = None,
) -> None:
    r"""Tell which figures of two results differ, and which only seem to.

    Figures are matched by their keys. One differs where a rank test over its
    rounds says so, corrected for the number of figures (Benjamini-Hochberg, 5 %).
    The change is B / A, or B - A for what may be zero, with its own 95 % interval.
    Single values and too few rounds (4 and 4 are the least) tell nothing.

    What keeps the two apart is said first: other settings, machine or versions,
    --quick, interrupted, not to be believed. Across machines only ratios (x) are
    compared.

    [bold]Exit codes[/]

      0 compared   1 not to be read, or nothing in common   2 usage
      3 compared, but one of the two is not to be believed   4 see --fail-on

    [bold]Examples[/]

      porten-bench compare before.json after.json

    In CI: fail where a ratio has become worse by more than a twentieth:

      porten-bench compare main.json branch.json --figure '*ratio' \
        --margin 5% --fail-on worse --markdown comparison.md
    """
    with terminal.at_work():
        check_apart(first, json_file, markdown)
        check_apart(second, json_file)
        if json_file == markdown == STDOUT:
            raise SettingInvalid("--json and --markdown cannot both go to standard output")
        wanted = Wanted(_margin(margin), tuple(figure or ()), everything)
        found = compare_results(read(first), read(second), wanted)
        _write_comparison(found, json_file, markdown, (first.name, second.name))
    raise typer.Exit(_exit_code(found, fail_on or ()))


def _write_comparison(
    found: Comparison, json_file: str | None, markdown: str | None, names: tuple[str, str]
) -> None:
    compare_page.show(Console(stderr=STDOUT in {json_file, markdown}), found)
    if json_file is not None:
        write(json_file, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    if markdown is not None:
        write(markdown, compare_page.markdown(found, *names).encode())


def _exit_code(found: Comparison, fail_on: Sequence[FailOn]) -> int:
    if found.refused:
        return terminal.REFUSED
    failing = {verdict for each in fail_on for verdict in _FAILING[each]}
    return FAILED if any(row.verdict in failing for row in found.rows) else 0


def report(
    files: Annotated[
        list[Path], typer.Argument(metavar="RESULT.json...", help="Of one benchmark or several.")
    ],
    *,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write one page; - is stdout.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write Markdown, with its plots as SVG beside it.")
    ] = None,
) -> None:
    r"""Make a page of one result, or of several side by side, with plots.

    Figures and plots of one key stand beside and over each other. What makes a
    result doubtful comes first. The page needs no network and no other file.
    Without --html and --markdown it is written to RESULT.html, beside the first.

    [bold]Examples[/]

      porten-bench report serving.json

      porten-bench report before.json after.json --html page.html

      porten-bench report node.json hub.json --markdown docs/figures.md
    """
    with terminal.at_work():
        results = named(files, [read(file) for file in files])
        if html is None and markdown is None:
            html = str(files[0].with_suffix(".html"))
        for file in files:
            check_apart(file, html)
            check_apart(file, markdown)
        if html is not None:
            write(html, document.html(results).encode())
            _say(html)
        if markdown is not None:
            text, pictures = document.markdown(results, markdown.stem)
            for name, data in {markdown.name: text, **pictures}.items():
                write(str(markdown.with_name(name)), data.encode())
                _say(str(markdown.with_name(name)))


def _margin(text: str) -> float:
    share = parse_share(text, "--margin")
    if share >= 1:
        raise SettingInvalid(f"--margin {text!r}: with all of a figure as its margin nothing would be worse")
    return share


def _say(file: str) -> None:
    if file != STDOUT:
        Console(stderr=True).print(f"Wrote {escape(file)}", highlight=False, soft_wrap=True)


def write(file: str, data: bytes) -> None:
    """Write a file; ``-`` is stdout.

    Raises:
        BenchmarkError: it cannot be written.
    """
    if file == STDOUT:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
        return
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        raise BenchmarkError(f"cannot write {file}: {error.strerror}") from error
