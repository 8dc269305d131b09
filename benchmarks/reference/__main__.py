"""``make bench`` and ``make bench-quick``: this project's own figures, and whether a ratio has fallen.

Owns the command line: which runs, which folder, which pages are written anew.
"""

import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from benchmarks.command import terminal
from benchmarks.reference import gate, tables
from benchmarks.reference.running import Place, measure, read_all, run
from benchmarks.reference.suite import RATIOS, SUITE, Measurement, named
from benchmarks.reports import result

RESULTS: Final = Path("benchmarks/results")
REFERENCE: Final = RESULTS / "ratios"
PAGES: Final = (Path("README.md"),)
"""Pages that tell some of the figures between two marks."""
_MORE_ROUNDS: Final = ("--rounds", "15")

_DATA: Final = Path(".cache/porten")

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.command("run")
def run_suite(
    names: Annotated[list[str] | None, typer.Argument(help="Which benchmarks. Default: all.")] = None,
    *,
    data_dir: Annotated[Path, typer.Option(help="Holds the engine and the model.")] = _DATA,
    missing: Annotated[bool, typer.Option("--missing", help="Only those without a result.")] = False,
) -> None:
    """Make this project's own figures, and write the pages that tell them. In the project's folder."""
    console, place = Console(), Place(RESULTS, data_dir)
    with terminal.at_work():
        wanted = [each for each in named(names or ()) if not (missing and place.file(each.name).exists())]
        failed = measure(wanted, place, console)
        if not names:
            failed += [f"ratios/{name}" for name in measure(RATIOS, Place(REFERENCE, data_dir), console)]
        write_pages()
    if failed:
        console.print(
            f"Not measured: {', '.join(failed)}. To go on: make bench BENCH=--missing", highlight=False
        )
        raise typer.Exit(1)


@app.command()
def pages() -> None:
    """Write the pages anew from the results that are there."""
    with terminal.at_work():
        write_pages()


def write_pages() -> None:
    """The page of all figures, and the tables in others."""
    results = read_all([each.name for each in SUITE], RESULTS)
    (RESULTS / "README.md").write_text(tables.page(SUITE, results), encoding="utf-8")
    for page in PAGES:
        page.write_text(
            tables.fill_in(page.read_text(encoding="utf-8"), tables.claims(results)), encoding="utf-8"
        )


@app.command()
def check() -> None:
    """Fail where a ratio is worse than the committed one by more than the margin, twice in a row."""
    console = Console()
    with terminal.at_work(), tempfile.TemporaryDirectory(prefix="porten-bench-") as name:
        fallen = [each for wanted in RATIOS for each in _twice(wanted, Path(name), console)]
    if fallen:
        console.print(f"[red]{len(fallen)} ratios have fallen by more than {gate.MARGIN:g} times.[/]")
        raise typer.Exit(1)


def _twice(wanted: Measurement, place: Path, console: Console) -> list[gate.Judged]:
    """What has fallen; one look that finds something is followed by a longer one, which counts."""
    fallen = _once(wanted, place, console)
    if fallen:
        console.print("Looking again, with more rounds.")
        fallen = _once(wanted, place, console, _MORE_ROUNDS)
    return fallen


def _once(
    wanted: Measurement, place: Path, console: Console, more: tuple[str, ...] = ()
) -> list[gate.Judged]:
    file = place / f"{wanted.name}.json"
    if status := run(wanted, file, _DATA, more):
        raise typer.Exit(status)
    judged = gate.judge(result.read(REFERENCE / file.name), result.read(file), wanted.judged)
    for each in judged:
        console.print(f"{'[red]fallen[/]' if each.has_fallen else 'held  '} {each}", highlight=False)
    return [each for each in judged if each.has_fallen]


if __name__ == "__main__":
    app()
