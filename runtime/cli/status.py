"""`porten status`: what the running node is doing, once or as it goes on.

Owns the tables. Must not know how the document comes about.
"""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runtime.cli.terminal import columns, console, say, settings, size
from runtime.control_client import ControlClient
from runtime.errors import ConfigInvalid, DaemonUnreachable

EVERY_S = 1.0
INTERRUPTED = 130


def status(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole status as JSON.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Keep showing it until Ctrl-C; once where no terminal is.")
    ] = False,
) -> None:
    """Show what the running node is doing. Exit code 1 where it is not running."""
    if as_json and watch:
        raise ConfigInvalid("--watch shows tables: leave out --json, or ask for it again and again")
    state_dir = settings(context).state_dir
    document = asyncio.run(_ask(state_dir))
    if as_json:
        say(json.dumps(document, indent=2))
    elif watch and console().is_terminal:
        _watch(state_dir, document)
    else:
        console().print(render(document))


def _watch(state_dir: Path, document: dict[str, Any]) -> None:
    try:
        with Live(render(document), console=console(), auto_refresh=False, screen=True) as live:
            asyncio.run(_refresh(live, state_dir))
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


async def _refresh(live: Live, state_dir: Path) -> None:
    """A node that restarts, as it does while it is upgraded, is waited for."""
    while True:
        try:
            live.update(render(await _ask(state_dir)), refresh=True)
        except DaemonUnreachable as error:
            live.update(Text(str(error)), refresh=True)
        await asyncio.sleep(EVERY_S)


async def _ask(state_dir: Path) -> dict[str, Any]:
    async with ControlClient.connect(state_dir) as client:
        return await client.status()


def render(document: dict[str, Any]) -> RenderableType:
    """The status document as tables, one below the other."""
    return Group(
        _head(document),
        Text(),
        _devices(document["devices"]),
        Text(),
        _models(document["models"], document["replicas"]),
    )


def _head(document: dict[str, Any]) -> Table:
    node = document["node"]
    table = Table.grid(padding=(0, 2))
    if node is not None:
        table.add_row("node", f"{node['name']} ({node['id']})")
        table.add_row("hub", f"{node['hub']}, tunnel {document['tunnel']['state']}")
        if document["tunnel"].get("draining"):  # a daemon of the release before does not say
            table.add_row("drain", "the Hub gives no new requests until somebody resumes this node there")
        table.add_row("region", f"{node['region'] or 'none'}, trust {node['trust']}, {node['sharing']}")
    else:
        table.add_row("hub", "none: serving this machine only")
    table.add_row("accepting", _accepting(document))
    table.add_row("local API", f"{document['local_api']}/v1")
    table.add_row("process", f"{document['pid']}, {document['agent']}")
    return table


def _accepting(document: dict[str, Any]) -> str:
    if document["accepting"]:
        return "yes"
    said = f"no: {document['reason'] or 'nothing can be served'}"
    stage = (document["owner"] or {}).get("stage")
    return f"{said} ({stage})" if stage in ("draining", "away") else said


def _devices(devices: list[dict[str, Any]]) -> Table:
    table = Table(
        "device", "name", "total", "others use", "budget", "reserved", title_justify="left", box=None
    )
    for device in devices:
        held = f" (+{size(device['memory_held'])} held)" if device["memory_held"] else ""
        table.add_row(
            device["kind"],
            device["name"],
            size(device["memory_total"]),
            size(device["memory_used_by_others"]),
            size(device["memory_budget"]),
            size(device["memory_reserved"]) + held,
        )
    return table


def _models(models: list[dict[str, Any]], replicas: list[dict[str, Any]]) -> Table:
    table = columns("model", "state", "running", "waiting", "tokens/s", "on disk", "fits")
    for model in models:
        own = [replica for replica in replicas if replica["model"] == model["model"]]
        table.add_row(
            model["model"],
            _state(model),
            str(sum(replica["running"] for replica in own)) if own else "",
            str(sum(replica["waiting"] for replica in own)) if own else "",
            f"{sum(replica['tokens_per_second'] for replica in own):.1f}" if own else "",
            "yes" if model["on_disk"] else "no",
            "yes" if model["fits"] else "no",
        )
    return table


def _state(model: dict[str, Any]) -> str:
    if model["state"] != "warming":
        return f"{model['state']} ({model['error']})" if model["error"] else str(model["state"])
    if model["total_bytes"]:
        return f"{model['phase']} {model['done_bytes'] / model['total_bytes']:.0%}"
    return str(model["phase"])
