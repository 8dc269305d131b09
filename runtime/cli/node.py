"""`porten run`, `porten stop`, `porten pause` and `porten resume`: the daemon, and when it works."""

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from runtime import logs
from runtime.cli.terminal import say, settings
from runtime.control_client import ControlClient
from runtime.data_dir import wait_for_daemon_end
from runtime.errors import DaemonUnreachable
from runtime.pause import Pause, PauseFile, parse_length
from runtime.service_files import COMES_AGAIN

RUN_EXAMPLES = """Examples:

porten run

Serve this machine's own programs, without a Hub:

porten run --local-only

A machine nobody sits at enrolls itself:

PORTEN_HUB_URL=https://hub.example.org PORTEN_JOIN_TOKEN=pjt-… porten run
"""


def run(
    context: typer.Context,
    *,
    local_only: Annotated[
        bool, typer.Option("--local-only", help="Serve the local API only; never dial a Hub.")
    ] = False,
) -> None:
    """Run the node until it is told to stop (Ctrl-C, SIGTERM); a second time stops it at once."""
    import uvloop  # noqa: PLC0415 - seconds of imports that no other command needs

    from runtime.node import Node  # noqa: PLC0415

    config = settings(context)
    logs.configure(config.log_level)

    async def serve() -> bool:
        node = Node(config, local_only=local_only)
        await node.run()
        return node.comes_again

    if uvloop.run(serve()):
        raise typer.Exit(COMES_AGAIN)


def stop(context: typer.Context) -> None:
    """Stop the running node; returns once it has ended. Answers in flight finish first."""
    state_dir = settings(context).state_dir
    try:
        asyncio.run(_shut_down(state_dir))
    except DaemonUnreachable:
        say("The node is not running.")
        return
    wait_for_daemon_end(state_dir)
    say("The node has stopped.")


async def _shut_down(state_dir: Path) -> None:
    async with ControlClient.connect(state_dir) as client:
        await client.shutdown()


def _length(text: str | None) -> float | None:
    try:
        return None if text is None else parse_length(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


PAUSE_EXAMPLES = """Examples:

porten pause

porten pause --for 2h
"""


def pause(
    context: typer.Context,
    *,
    length: Annotated[
        str | None,
        typer.Option("--for", help="How long, such as 30m, 2h or 1h30m; until `resume` otherwise."),
    ] = None,
) -> None:
    """Give the machine back: nothing new is begun, answers in flight finish, models leave the memory."""
    seconds = _length(length)
    until = None if seconds is None else time.time() + seconds
    state_dir = settings(context).state_dir
    try:
        found = asyncio.run(_pause(state_dir, until))
    except DaemonUnreachable:
        PauseFile(state_dir).write(Pause(until))
        say("The node is not running; it will start paused.")
        return
    say(f"The node is {found['reason']}. `porten resume` ends it.")


def resume(context: typer.Context) -> None:
    """End the pause. What else keeps the node from working, such as its schedule, still does."""
    state_dir = settings(context).state_dir
    try:
        found = asyncio.run(_resume(state_dir))
    except DaemonUnreachable:
        was = PauseFile(state_dir).clear()
        say("The node is not running; it will not start paused." if was else "There is no pause.")
        return
    say("The node works." if found["reason"] is None else f"The pause is over, but: {found['reason']}.")


async def _pause(state_dir: Path, until: float | None) -> dict[str, Any]:
    async with ControlClient.connect(state_dir) as client:
        return await client.pause(until)


async def _resume(state_dir: Path) -> dict[str, Any]:
    async with ControlClient.connect(state_dir) as client:
        return await client.resume()
