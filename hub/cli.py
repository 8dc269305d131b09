"""``porten-hub``: the operator's command line.

Owns words and options. What a command does is :mod:`hub.operations`'s, how it speaks is
:mod:`hub.terminal`'s. Commands work on the database itself, so they need no running Hub, and a running one
obeys them within a second.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from hub.accounts import checked_email
from hub.cli_access import join_tokens_app, nodes_app, regions_app
from hub.cli_admin_tokens import admin_tokens_app
from hub.cli_data import backup, migrate, restore
from hub.cli_erase import erase_app
from hub.cli_evidence import audit_app, receipts_app
from hub.cli_explain import explain_key
from hub.cli_keys import keys_app
from hub.cli_people import accounts_app, organisations_app
from hub.cli_usage import usage
from hub.config import load_config
from hub.errors import InvalidInput
from hub.identifiers import checked_name
from hub.operations import Initialised, initialise, read_region
from hub.storage.engine import shown_url
from hub.terminal import (
    ask,
    ask_password,
    config_of,
    explained,
    is_interactive,
    loaded_of,
    out,
    say,
    show_table,
)
from tunnel.version import __version__

app = typer.Typer(
    name="porten-hub",
    help="Run a Porten Hub: the API and router in front of your own nodes.",
    epilog="First steps: porten-hub init, then porten-hub serve. Settings: porten-hub config show.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
config_app = typer.Typer(help="See the settings in force.", no_args_is_help=True)

app.add_typer(keys_app, name="keys")
app.add_typer(nodes_app, name="nodes")
app.add_typer(regions_app, name="regions")
app.add_typer(join_tokens_app, name="join-token")
app.add_typer(accounts_app, name="accounts")
app.add_typer(admin_tokens_app, name="admin-tokens")
app.add_typer(organisations_app, name="organisations")
app.add_typer(receipts_app, name="receipts")
app.add_typer(audit_app, name="audit")
app.add_typer(erase_app, name="erase")
app.add_typer(config_app, name="config")
app.command("explain")(explain_key)
app.command("usage")(usage)


def _say_version(wanted: bool) -> None:
    if wanted:
        out.print(f"porten-hub {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Settings file (TOML); PORTEN_HUB_CONFIG where unset.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the Hub's key and data live.")] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version this is."),
    ] = False,
) -> None:
    """Read the settings, once."""
    # The database, its log and the spool hold what is nobody else's business on this machine.
    os.umask(0o077)
    with explained():
        context.obj = load_config(config, options={} if data_dir is None else {"data_dir": data_dir})


@app.command()
def init(
    context: typer.Context,
    *,
    email: Annotated[str | None, typer.Option(help="The operator's e-mail address, to sign in with.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Name of the operator's organisation.")] = None,
    password_file: Annotated[
        str | None, typer.Option(help="File with the operator's password, '-' for standard input.")
    ] = None,
    region: Annotated[
        list[str] | None,
        typer.Option(help="A further region, as CODE:PARENT, or CODE for a root.", metavar="CODE:PARENT"),
    ] = None,
    new_key: Annotated[
        bool,
        typer.Option(
            "--new-key", help="Go on with another key: the one here, else a new one; nodes must enroll again."
        ),
    ] = False,
) -> None:
    """Make a Hub here: its key, its database, the operator's account and the regions.

    Run again, it finishes what was interrupted, or says what is there and changes nothing.

    [bold]Examples[/bold]

    porten-hub init --email you@example.org --organisation "Your team"

    porten-hub init --email you@example.org --password-file - < password

    porten-hub init --email you@example.org --region eu-de-ber:eu-de
    """
    with explained():
        made = asyncio.run(
            initialise(
                config_of(context),
                time.time,
                email=lambda: email or _ask_email(),
                organisation=lambda address: organisation or _ask_organisation(address),
                password=lambda: ask_password(password_file),
                regions=[read_region(text) for text in region or ()],
                new_key=new_key,
            )
        )
    _report(context, made)


@app.command()
def serve(context: typer.Context) -> None:
    """Serve the API, the portal and the tunnels until SIGTERM or Ctrl-C.

    On SIGTERM no new work is taken and answers in flight get drain_s seconds to finish.

    [bold]Examples[/bold]

    porten-hub serve

    For other machines, behind a proxy that ends TLS:

    export PORTEN_HUB_PUBLIC_URL=https://hub.example.org

    export PORTEN_HUB_TUNNEL_URLS=wss://hub.example.org/tunnel

    porten-hub serve
    """
    from hub.serve import run  # noqa: PLC0415 - the web framework loads slowly, and no other command needs it

    with explained():
        raise typer.Exit(run(config_of(context)))


@app.command()
def version() -> None:
    """Say which version this is."""
    _say_version(wanted=True)


@config_app.command("show")
def show_config(context: typer.Context) -> None:
    """Show every setting, its value, and where the value came from."""
    loaded = loaded_of(context)
    rows = [
        (name, _shown(name, getattr(loaded.config, name)), loaded.origins[name])
        for name in type(loaded.config).model_fields
    ]
    show_table(("setting", "value", "from"), rows, empty="There are no settings.")


for command in (backup, restore, migrate):
    app.command()(command)


def main() -> None:
    """Entry of the console script."""
    app()


def _ask_email() -> str:
    if not is_interactive():
        raise InvalidInput("email", "say who the operator is: --email you@example.org")
    return ask("The operator's e-mail address", checked_email)


def _ask_organisation(email: str) -> str:
    default = email.lower().rpartition("@")[2]
    if not is_interactive():
        return default
    return ask("Name of your organisation", checked_name, default=default)


def _report(context: typer.Context, made: Initialised) -> None:
    config = config_of(context)
    if made.has_another_key:
        words = "goes on with another key: every node must enroll again with `porten login`"
        say.print(f"The Hub in {config.data_dir} {words}.", markup=False)
    elif made.was_there:
        say.print(f"There is a Hub in {config.data_dir} already; nothing was changed.", markup=False)
    else:
        say.print(f"Made a Hub in {config.data_dir}.", markup=False)
    say.print(f"  operator      {made.operator.email} ({made.organisation.name})", markup=False)
    say.print(f"  key           {config.key_file}: whoever holds it is this Hub; back it up", markup=False)
    say.print(f"  database      {_shown('database_url', config.database)}", markup=False)
    say.print(f"  regions       {made.regions}: porten-hub regions list")
    if not made.was_there:
        command = escape(_command(context))
        say.print("\nNext:")
        say.print(f"  1. [bold]{command} serve[/bold], and sign in to the portal")
        say.print("  2. on a machine of yours: [bold]curl -fsSL URL/install.sh | sh[/bold]; approve it there")
        say.print(f"  3. [bold]{command} keys create --name my-app[/bold], and point your app at URL/v1")


def _command(context: typer.Context) -> str:
    """This program as it has to be called again to find the same Hub."""
    given = {} if context.parent is None else context.parent.params
    options = [("--config", given.get("config")), ("--data-dir", given.get("data_dir"))]
    words = [word for name, value in options if value is not None for word in (name, str(value.absolute()))]
    return shlex.join(["porten-hub", *words])


def _shown(name: str, value: object) -> str:
    if value is None:
        return "-"
    if name == "database_url":
        return shown_url(str(value))
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value)
