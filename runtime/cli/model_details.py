"""`porten models show`: what a model on the disk is, and which device could hold it.

Owns the document and its look. Must not know how the numbers are judged.
"""

import asyncio
import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from models.catalog import ModelSpec
from models.errors import FormatUnsupported, ModelNotFound
from models.formats import read_gguf_header
from models.header import ModelHeader
from models.safetensors import read_safetensors_header
from models.store import ModelStore, StoredModel
from runtime import assembly, devices
from runtime.backends.base import Backend, ReplicaPlan
from runtime.cli.terminal import columns, console, say, settings, size
from runtime.config import NodeConfig
from runtime.control_client import ControlClient
from runtime.errors import DaemonUnreachable
from runtime.model_report import DeviceRoom, fits_of, memory_document, quantisation


def show_model(
    context: typer.Context,
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Id of a model that is on the disk.")],
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a model is, its files, and which device could hold it and why."""
    document = _document(settings(context), model)
    if as_json:
        say(json.dumps(document, indent=2))
    else:
        _print(document)


def _document(config: NodeConfig, model: str) -> dict[str, Any]:
    spec, store = assembly.open_catalog(config).require(model), assembly.open_store(config)
    if (stored := store.find(spec)) is None:
        raise ModelNotFound(model, f"store: `porten models pull {model}` brings it")
    backends = [backend for backend in assembly.make_backends(config) if spec.format in backend.formats]
    plans = _plans(config, spec, stored, backends)
    kinds = {backend.name: backend.device_kinds for backend in backends}
    fits = fits_of(plans, kinds, asyncio.run(_rooms(config)))
    return _facts(spec, store, stored) | {
        "memory": [memory_document(plan) for plan in plans],
        "devices": [asdict(fit) for fit in fits],
    }


def _facts(spec: ModelSpec, store: ModelStore, stored: StoredModel) -> dict[str, Any]:
    header = _header(stored)
    whole = [{"path": stored.path.name, "size_bytes": stored.size_bytes}]
    return {
        "model": spec.id,
        "name": spec.name,
        "format": stored.format,
        "architecture": header.architecture,
        "quantisation": quantisation(header),
        "parameters": header.parameters or None,
        "capabilities": sorted(spec.capabilities),
        "context_length": min(spec.context_length, header.context_length or spec.context_length),
        "trained_context_length": header.context_length,
        "digest": stored.digest,
        "size_bytes": stored.size_bytes,
        "path": str(stored.path),
        "in_place": stored.in_place,
        "pinned": store.marks.is_pinned(spec.id),
        "files": [{"path": f.path, "size_bytes": f.size_bytes} for f in stored.files] or whole,
    }


def _header(stored: StoredModel) -> ModelHeader:
    read = read_gguf_header if stored.format == "gguf" else read_safetensors_header
    return read(stored.path)


def _plans(
    config: NodeConfig, spec: ModelSpec, stored: StoredModel, backends: list[Backend]
) -> list[ReplicaPlan]:
    """What each engine would run; one that cannot read the weights has none."""
    found, faults = [], []
    for backend in backends:
        try:
            found.append(backend.plan(spec, stored, assembly.engine_options(config)))
        except FormatUnsupported as error:
            faults.append(error)
    if faults and not found:
        raise faults[0]
    return found


async def _rooms(config: NodeConfig) -> list[DeviceRoom]:
    """The devices as the running node sees them, or as they are where none runs."""
    try:
        async with ControlClient.connect(config.state_dir) as client:
            views = (await client.status())["devices"]
    except DaemonUnreachable:
        readings = await asyncio.to_thread(assembly.make_budgets(config, devices.detect()).read, ())
        return [DeviceRoom(one.id, one.kind, one.budget) for one in readings]
    return [
        DeviceRoom(view["id"], view["kind"], view["memory_budget"], view["memory_reserved"]) for view in views
    ]


def _print(document: dict[str, Any]) -> None:
    facts = columns("", "")
    facts.show_header = False
    shown = {key: value for key, value in document.items() if key not in ("files", "memory", "devices")}
    shown["capabilities"] = ", ".join(document["capabilities"])
    for key, value in shown.items():
        text = size(value) if key == "size_bytes" else {True: "yes", False: "no", None: "?"}.get(value, value)
        facts.add_row(key.replace("_", " "), f"{text:,}" if key == "parameters" and value else str(text))
    files = columns("file", "size")
    for file in document["files"]:
        files.add_row(file["path"], size(file["size_bytes"]))
    for table in (facts, files, _fit_table(document["devices"])):
        console().print(table)


def _fit_table(fits: list[dict[str, Any]]) -> Any:
    table = columns("engine", "device", "needs", "free", "budget", "")
    for fit in fits:
        needs = size(fit["needed"]) + (f" on each of {fit['shards']}" if fit["shards"] > 1 else "")
        numbers = needs, size(fit["free"]), size(fit["budget"])
        table.add_row(fit["backend"], fit["device"], *numbers, fit["verdict"])
    return table
