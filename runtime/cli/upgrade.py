"""`porten upgrade` and `porten rollback`: another version of the program, and the way back."""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime.cli.terminal import loaded, say
from runtime.config import NodeConfig
from runtime.errors import RuntimeFault
from runtime.service_node import SOUND_S
from runtime.upgrade import Change, Upgrade, available
from runtime.versions import Versions, version_of

INTERRUPTED = 130
UPGRADE_EXAMPLES = """Examples:

porten upgrade --check

porten upgrade

Without a package index, from a folder with all its wheels:

porten upgrade --from ./porten-wheels
"""
Wait = Annotated[
    float,
    typer.Option("--wait", min=1, help="Seconds within which the node must be what it was before."),
]


def upgrade(
    context: typer.Context,
    *,
    version: Annotated[str | None, typer.Option("--to", help="Which; the newest otherwise.")] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A wheel, a folder of wheels or of source."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Say what there is; change nothing.")] = False,
    wait: Wait = SOUND_S,
) -> None:
    """Go over to another version. It is tried first; where it does not work, this one stays.

    The newest is that of the Hub, where its script installed this one, and otherwise that of pip's index.
    """
    versions = Versions.of_this_program()
    if check:
        _check(loaded(context).config, versions, source, version)
        return
    work = Upgrade(loaded(context), versions, tell=_step, sound_s=wait)
    _say_change(_run(work.to(source, version)))


def rollback(context: typer.Context, *, wait: Wait = SOUND_S) -> None:
    """Go back to the version before the last upgrade; a second time returns to it."""
    versions = Versions.of_this_program()
    work = Upgrade(loaded(context), versions, tell=_step, sound_s=wait)
    _say_change(_run(work.back()))


def _run(work: Coroutine[Any, Any, Change]) -> Change:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        say("Cancelled: the version before stays.")
        raise typer.Exit(INTERRUPTED) from None


def _step(text: str) -> None:
    say(f"upgrade: {text}")


def _check(config: NodeConfig, versions: Versions, source: Path | None, version: str | None) -> None:
    say(f"installed  {version_of(versions.current)}  ({versions.current})")
    if versions.previous is not None:
        say(f"before     {version_of(versions.previous)}  (`porten rollback`)")
    found = asyncio.run(available(config, versions, source, version))
    if isinstance(found, RuntimeFault):
        raise found
    say(f"available  {found}")


def _say_change(change: Change) -> None:
    if not change.changed:
        say(f"porten {change.version} is installed already.")
        return
    say(f"porten {change.version} is in use, instead of {change.before}; `porten rollback` goes back.")
    if change.by_hand is not None:
        say(
            f"The node that runs (pid {change.by_hand}) is still the one from before; "
            "restart it: porten stop, then porten run"
        )
