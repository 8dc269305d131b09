"""`porten models`: what there is, what is on the disk, getting and deleting weights."""

import asyncio
from typing import Annotated, Any

import typer

from models.download import Progress, pull
from models.errors import ModelNotFound
from runtime import assembly
from runtime.cli.terminal import StepBar, columns, console, say, settings, size
from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.errors import DaemonUnreachable

app = typer.Typer(help="Models: list, pull and remove them.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model, as `porten models list` shows it.")]


@app.command("list")
def list_models(context: typer.Context) -> None:
    """List the catalog: what is on the disk, what fits this machine, what is loaded."""
    config = settings(context)
    asyncio.run(_list(config))


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


async def _list(config: NodeConfig) -> None:
    running = await _running_models(config)
    catalog, store = assembly.open_catalog(config), assembly.open_store(config)
    served = {model: f"at {name}" for name, end in config.endpoints.items() for model in end.models}
    table = columns("model", "state", "on disk", "size", "fits", "context", "name")
    for spec in catalog:
        view = running.get(spec.id)
        stored = store.find(spec)
        table.add_row(
            spec.id,
            "-" if view is None else str(view["state"]),
            served.get(spec.id, "yes" if stored else "no"),
            size(stored.size_bytes if stored else spec.size_bytes),
            "-" if view is None else ("yes" if view["fits"] else "no"),
            str(spec.context_length),
            spec.name,
        )
    console().print(table)
    if not running:
        say("\nThe node is not running: state and fit are known once it is (`porten run`).")


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

    await pull(spec, assembly.open_store(config), on_progress=show)


async def _remove(config: NodeConfig, model: str) -> int:
    store = assembly.open_store(config)
    if not any(stored.model_id == model for stored in store.list()):
        raise ModelNotFound(model, "store")
    try:
        async with ControlClient.connect(config.state_dir) as client:
            return await client.remove(model)
    except DaemonUnreachable:
        return store.remove(model)
