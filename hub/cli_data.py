"""``porten-hub backup | restore | migrate``.

Owns their words and options; see :mod:`hub.cli`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hub import key_claim
from hub.acting import act_as
from hub.backups import back_up, bring_back
from hub.config import HubConfig
from hub.identity import load_hub_key
from hub.operations import command_actor
from hub.storage import migrate as schema
from hub.storage.archive import Contents
from hub.storage.backup import Told
from hub.storage.repositories import Storage
from hub.terminal import EXIT_FAILED, config_of, explained, say

FileArgument = Annotated[Path, typer.Argument(help="The backup.", metavar="FILE", dir_okay=False)]


def backup(
    context: typer.Context,
    file: FileArgument,
    *,
    with_key: Annotated[
        bool, typer.Option("--with-key", help="Put hub.key in it too: whoever has the file is then this Hub.")
    ] = False,
) -> None:
    """Write all that the Hub keeps into a file. The Hub may run meanwhile.

    The file belongs to no database: a Hub on SQLite can come back on PostgreSQL, and the reverse.

    [bold]Example[/bold]

    porten-hub backup /backup/hub-monday.porten
    """
    with explained(), _progress("backing up") as told:
        config = config_of(context)
        contents = asyncio.run(back_up(config, file, with_key=with_key, clock=time.time, told=told))
    _report(contents, f"Wrote {file}")
    if with_key:
        say.print("[yellow]warning:[/yellow] the Hub's key is in it: whoever has the file is this Hub.")
    else:
        say.print(f"The Hub's key is not in it: keep a copy of {config.key_file} elsewhere.", markup=False)


def restore(
    context: typer.Context,
    file: FileArgument,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also where there is a Hub with data, which is then gone.")
    ] = False,
) -> None:
    """Put a backup in the place of what is here. Stop every Hub of this database first.

    It is all there or not at all: killed in the middle, what was here before is still here. What was revoked
    after the backup is valid again: revoke it again. With the URL of another database in database_url it is
    the way there, from SQLite to PostgreSQL or back.

    [bold]Example[/bold]

    porten-hub restore /backup/hub-monday.porten
    """
    with explained(), _progress("restoring") as told:
        config = config_of(context)
        contents, trouble = asyncio.run(bring_back(config, file, overwrite=overwrite, told=told))
    _report(contents, f"Restored {file}")
    if trouble is not None:
        say.print(f"[yellow]warning:[/yellow] {escape(str(trouble))}")


def migrate(
    context: typer.Context,
    *,
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether there is something to do: exit status 1 if so.")
    ] = False,
) -> None:
    """Bring the database's schema up to date, as `serve` and every other command do by themselves.

    Run it before a new version is started, where an upgrade is to be planned. It is done wholly or not.
    """
    with explained():
        before, after = asyncio.run(_migrate(config_of(context), check=check))
    if before == after:
        say.print(f"The schema is up to date: {after}.")
    elif check:
        say.print(f"The schema is {before or 'not there'}, this version needs {after}: porten-hub migrate")
        raise typer.Exit(EXIT_FAILED)
    else:
        say.print(f"Brought the schema from {before or 'nothing'} to {after}.")


async def _migrate(config: HubConfig, *, check: bool) -> tuple[str | None, str]:
    key = load_hub_key(config.key_file, config.database_file)
    act_as(command_actor())
    async with await Storage.open(config.database) as storage:
        before = await schema.revision_of(storage.database)
        await (key_claim.check if check else key_claim.take)(storage, key)
        return before, schema.latest_revision()


@contextmanager
def _progress(words: str) -> Iterator[Told]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=say, transient=True) as bar:
        task = bar.add_task(words)

        def told(table: str, done: int, total: int) -> None:
            bar.update(task, description=f"{words}: {table}", completed=done, total=total)

        yield told


def _report(contents: Contents, words: str) -> None:
    made = datetime.fromtimestamp(contents.head.made_at, tz=UTC)
    say.print(f"{words}: {contents.rows} rows as of {made:%Y-%m-%d %H:%M} UTC.", markup=False)
    for table, (rows, _) in contents.sums.items():
        say.print(f"  {table:<24}{rows:>10}", markup=False)
