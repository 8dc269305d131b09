"""`porten models`: what there is, what is on the disk, getting and deleting weights."""

import asyncio
import json
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.table import Table

from models.catalog import ModelSpec
from models.download import Progress, pull
from models.errors import ModelNotFound
from models.store import Checked, ModelStore
from runtime import assembly
from runtime.cli.model_details import show_model
from runtime.cli.terminal import StepBar, columns, console, say, settings, size
from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.errors import DaemonUnreachable

app = typer.Typer(help="Models: list, pull, keep, check and remove them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model, as `porten models list` shows it.")]


@app.command("list")
def list_models(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the catalog: what is on the disk, what fits this machine, what is loaded."""
    models, running = asyncio.run(_list(settings(context)))
    if as_json:
        say(json.dumps(models, indent=2))
        return
    console().print(_table(models))
    if not running:
        say("\nThe node is not running: state and fit are known once it is (`porten run`).")


app.command("show")(show_model)


@app.command("pull", epilog="Example: porten models pull smollm2-135m-instruct")
def pull_model(context: typer.Context, model: Id) -> None:
    """Bring a model's weights onto the disk. Works with and without a running node."""
    config = settings(context)
    with StepBar(model).shown() as bar:
        asyncio.run(_pull(config, model, bar))
    say(f"{model} is on the disk.")


@app.command("rm")
def remove_model(context: typer.Context, model: Id) -> None:
    """Delete a model's weights; a running node unloads it first."""
    freed = asyncio.run(_remove(settings(context), model))
    say(f"{model} is removed; {size(freed)} are free again.")


@app.command("pin")
def pin_model(context: typer.Context, model: Id) -> None:
    """Keep a model on the disk, whatever else is pulled."""
    _require_known(settings(context), model).pin(model)
    say(f"{model} is pinned.")


@app.command("unpin")
def unpin_model(context: typer.Context, model: Id) -> None:
    """Let a model make room for others again."""
    _require_known(settings(context), model).marks.unpin(model)
    say(f"{model} is not pinned.")


@app.command("verify")
def verify_models(
    context: typer.Context,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Ids; everything on the disk without.")
    ] = None,
) -> None:
    """Read all bytes of models again. Damaged ones are set aside; then the exit code is 1."""
    store = assembly.open_store(settings(context))
    found = [_verify(store, model) for model in models or [stored.model_id for stored in store.list()]]
    for checked in found:
        say(_verdict(checked))
    if any(checked.damaged for checked in found):
        raise typer.Exit(1)


def _verify(store: ModelStore, model: str) -> Checked:
    size_bytes = next((one.size_bytes for one in store.list() if one.model_id == model), None)
    with StepBar(model).shown() as bar:
        return store.check(model, lambda done: bar.show("verifying", done, size_bytes))


def _verdict(checked: Checked) -> str:
    if not checked.damaged:
        return f"{checked.model_id} is sound."
    where = f"set aside in {checked.set_aside}" if checked.set_aside else "left where they are"
    files = ", ".join(checked.damaged)
    return f"{checked.model_id} is DAMAGED ({files}): its weights are {where}. Pull it again."


def _require_known(config: NodeConfig, model: str) -> ModelStore:
    """The store, where the catalog or the disk has the model.

    Raises:
        ModelNotFound: neither has.
    """
    store = assembly.open_store(config)
    if model not in assembly.open_catalog(config) and all(one.model_id != model for one in store.list()):
        raise ModelNotFound(model)
    return store


async def _list(config: NodeConfig) -> tuple[list[dict[str, Any]], bool]:
    """Each model of the catalog, and whether a node runs that knows their state."""
    running = await _running_models(config)
    store = assembly.open_store(config)
    served = {model: name for name, end in config.endpoints.items() for model in end.models}
    rows = [
        _row(spec, store, running.get(spec.id)) | {"endpoint": served.get(spec.id)}
        for spec in assembly.open_catalog(config)
    ]
    return rows, bool(running)


def _row(spec: ModelSpec, store: ModelStore, view: dict[str, Any] | None) -> dict[str, Any]:
    stored = store.find(spec)
    return {
        "model": spec.id,
        "name": spec.name,
        "format": spec.format,
        "capabilities": sorted(spec.capabilities),
        "context_length": view["context_length"] if view else spec.context_length,
        "state": view and view["state"],
        "fits": view and view["fits"],
        "on_disk": stored is not None,
        "size_bytes": stored.size_bytes if stored else spec.size_bytes,
        "digest": stored and stored.digest,
        "in_place": stored is not None and stored.in_place,
        "pinned": store.marks.is_pinned(spec.id),
        "last_used": store.marks.used(spec.id) or None,
    }


def _table(models: Sequence[dict[str, Any]]) -> Table:
    table = columns("model", "state", "on disk", "size", "fits", "context", "name")
    for model in models:
        fits = {None: "-", True: "yes", False: "no"}[model["fits"]]
        on_disk = ("pinned" if model["pinned"] else "yes") if model["on_disk"] else "no"
        if model["endpoint"]:
            on_disk = f"at {model['endpoint']}"
        table.add_row(
            model["model"],
            model["state"] or "-",
            on_disk,
            size(model["size_bytes"]),
            fits,
            str(model["context_length"]),
            model["name"],
        )
    return table


async def _running_models(config: NodeConfig) -> dict[str, dict[str, Any]]:
    try:
        async with ControlClient.connect(config.state_dir) as client:
            document = await client.status()
    except DaemonUnreachable:
        return {}
    return {view["model"]: view for view in document["models"]}


async def _pull(config: NodeConfig, model: str, bar: StepBar) -> None:
    spec = assembly.open_catalog(config).require(model)
    try:
        async with ControlClient.connect(config.state_dir) as client:
            async for step in client.progress("pull", model):
                bar.show(step["phase"], step["done_bytes"], step["total_bytes"])
            return
    except DaemonUnreachable:
        pass  # the store may be shared by any number of processes: pull into it from here

    def show(progress: Progress) -> None:
        bar.show(progress.phase, progress.done_bytes, progress.total_bytes)

    await pull(
        spec,
        assembly.open_store(config),
        on_progress=show,
        bytes_per_s=assembly.download_rate(config),
    )


async def _remove(config: NodeConfig, model: str) -> int:
    store = assembly.open_store(config)
    if not any(stored.model_id == model for stored in store.list()):
        raise ModelNotFound(model, "store")
    try:
        async with ControlClient.connect(config.state_dir) as client:
            return await client.remove(model)
    except DaemonUnreachable:
        return store.remove(model)
