"""The command line ``porten-bench``: reads settings, runs a measurement, shows and writes the result.

Exit codes: 0 measured, 1 nothing could be measured, 2 the command makes no sense, 3 measured but not to be
believed, 4 `compare` found what `--fail-on` names, 130 stopped by Ctrl-C or SIGTERM (what was measured by
then is shown and written all the same).
"""

from typing import Annotated

import typer

from benchmarks.calibration import commands as calibration_commands
from benchmarks.capacity import commands as capacity_commands
from benchmarks.hub import commands as hub_commands
from benchmarks.node import commands as node_commands
from benchmarks.overhead import commands as overhead_commands
from benchmarks.policy import commands as policy_commands
from benchmarks.reports import commands as report_commands
from benchmarks.routing import commands as routing_commands
from benchmarks.serving import commands as serving_commands
from benchmarks.tunnel import commands as tunnel_commands
from tunnel.version import __version__

app = typer.Typer(
    name="porten-bench",
    help="Measure OpenAI-compatible endpoints, and what Porten adds on the way to one.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,  # its tracebacks would show local variables, keys among them
)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"porten-bench {__version__}")
        raise typer.Exit


@app.callback()
def program(
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Measure OpenAI-compatible endpoints, and what Porten adds on the way to one."""


app.command(no_args_is_help=True)(serving_commands.serving)
app.command(no_args_is_help=True)(serving_commands.figures)
app.command()(overhead_commands.overhead)
app.command(no_args_is_help=True)(capacity_commands.capacity)
app.command()(tunnel_commands.tunnel)
app.command()(node_commands.node)
app.command()(node_commands.cold_load)
app.command()(hub_commands.hub)
app.command()(routing_commands.routing)
app.command()(calibration_commands.calibrate)
app.command()(policy_commands.policy)
app.command(no_args_is_help=True)(report_commands.compare)
app.command(no_args_is_help=True)(report_commands.report)


@app.command()
def version() -> None:
    """Print the version."""
    _say_version(wanted=True)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
