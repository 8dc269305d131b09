"""The command tree of `porten`: what there is, and in which order help shows it.

Must not know what a command does.
"""

from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import engines, hub, models, node, service, status, upgrade, upkeep
from runtime.cli.terminal import FaultTellingGroup, Settings, say
from tunnel.version import __version__

HELP = """Serve language models from this machine: to your Hub through an outbound tunnel, and locally.

A first evening: `porten engines install`, `porten login --hub URL`, `porten run`.
"""

app = typer.Typer(
    name="porten",
    help=HELP,
    cls=FaultTellingGroup,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings: `porten config show` lists them all, and says where each value came from.",
)


def _say_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        say(f"porten {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    *,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version."),
    ] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings file (TOML); PORTEN_CONFIG or ~/.config/porten/node.toml otherwise."),
    ] = None,
) -> None:
    """Take the options that come before every command."""
    context.obj = Settings(config)


@app.command()
def version() -> None:
    """Print the version."""
    _say_version(wanted=True)


app.command(epilog=hub.LOGIN_EXAMPLES)(hub.login)
app.command(epilog=node.RUN_EXAMPLES)(node.run)
app.command()(node.stop)
app.command(epilog=node.PAUSE_EXAMPLES)(node.pause)
app.command()(node.resume)
app.command()(status.status)
app.command()(service.logs)
app.command()(upkeep.doctor)
app.command(epilog=upgrade.UPGRADE_EXAMPLES)(upgrade.upgrade)
app.command()(upgrade.rollback)
app.command("rotate-key")(hub.rotate)
app.command()(hub.logout)
app.add_typer(models.app, name="models")
app.add_typer(engines.app, name="engines")
app.add_typer(service.app, name="service")
app.add_typer(upkeep.config_app, name="config")


def main() -> None:
    """The console script `porten`."""
    app(prog_name="porten")
