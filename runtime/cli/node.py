"""`porten run`, `porten stop` and `porten status`: the daemon, and what it says of itself."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from runtime import logs
from runtime.cli.terminal import columns, console, say, settings, size
from runtime.control_client import ControlClient
from runtime.data_dir import wait_for_daemon_end
from runtime.errors import DaemonUnreachable

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

    async def serve() -> None:
        await Node(config, local_only=local_only).run()

    uvloop.run(serve())


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


def status(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole status as JSON.")] = False,
) -> None:
    """Show what the running node is doing. Exit code 1 where it is not running."""
    document = asyncio.run(_ask(context))
    if as_json:
        say(json.dumps(document, indent=2))
        return
    _print_head(document)
    _print_devices(document["devices"])
    _print_models(document["models"], document["replicas"])


async def _ask(context: typer.Context) -> dict[str, Any]:
    async with ControlClient.connect(settings(context).state_dir) as client:
        return await client.status()


def _print_head(document: dict[str, Any]) -> None:
    node = document["node"]
    table = Table.grid(padding=(0, 2))
    if node is not None:
        table.add_row("node", f"{node['name']} ({node['id']})")
        table.add_row("hub", f"{node['hub']}, tunnel {document['tunnel']['state']}")
        table.add_row("region", f"{node['region'] or 'none'}, trust {node['trust']}, {node['sharing']}")
    else:
        table.add_row("hub", "none: serving this machine only")
    accepting = "yes" if document["accepting"] else f"no: {document['reason'] or 'nothing can be served'}"
    table.add_row("accepting", accepting)
    table.add_row("local API", f"{document['local_api']}/v1")
    table.add_row("process", f"{document['pid']}, {document['agent']}")
    console().print(table)


def _print_devices(devices: list[dict[str, Any]]) -> None:
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
    console().print()
    console().print(table)


def _print_models(models: list[dict[str, Any]], replicas: list[dict[str, Any]]) -> None:
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
    console().print()
    console().print(table)


def _state(model: dict[str, Any]) -> str:
    if model["state"] != "warming":
        return f"{model['state']} ({model['error']})" if model["error"] else str(model["state"])
    if model["total_bytes"]:
        return f"{model['phase']} {model['done_bytes'] / model['total_bytes']:.0%}"
    return str(model["phase"])
