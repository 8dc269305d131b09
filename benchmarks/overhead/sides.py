"""Every way to one engine, all of it started here: its own port, a node's API, Hub and tunnel, and peers.

All ways lead to the very same process of the engine: for the node it is an endpoint of its owner's. Owns
their start, their end and how they know each other. Must not know what is measured on them.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.errors import EndpointUnusable
from benchmarks.generator.client import Client
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import WatchedTree
from benchmarks.overhead.peers import Peer
from benchmarks.overhead.turns import Side
from benchmarks.serving.measuring import probe
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.local_node import STARTED
from benchmarks.stacks.schedules import model_name
from benchmarks.stacks.stack import SharedData, Stack, run_stack
from benchmarks.tunnel.stack import hub_config, limited_key, python_process
from hub.operations import workplace
from runtime.backends.base import EngineOptions

ENGINE: Final = "engine"
INTERVAL_MS: Final = 5
"""The scripted engine's pace."""
MOST_AT_ONCE: Final = 256
"""What a node gives to an endpoint at once, at most."""
_PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.1
_CATALOG: Final = """
[[models]]
id = "{model}"
name = "Scripted"
context_length = 8192
capabilities = ["chat"]
[models.source]
kind = "endpoint"
"""


@dataclass(frozen=True, slots=True)
class EngineAtWork:
    """The one engine behind all sides.

    Attributes:
        target: its own port.
        pid: the root of its processes.
        data: where a node looks for engines and models.
        catalog: files that name its model, for the node and for the Hub.
    """

    target: Target
    pid: int
    data: SharedData
    catalog: tuple[Path, ...] = ()

    @property
    def tree(self) -> WatchedTree:
        """Its processes."""
        return WatchedTree(ENGINE, self.pid)


def folder(parent: Path, name: str) -> Path:
    """A new folder for one program's files."""
    made = parent / name
    made.mkdir()
    return made


@asynccontextmanager
async def scripted_engine(directory: Path) -> AsyncIterator[EngineAtWork]:
    """Run the engine that needs no model, its files in ``directory``."""
    catalog = directory / "catalog.toml"
    catalog.write_text(_CATALOG.format(model=model_name(INTERVAL_MS)), encoding="utf-8")
    module = "benchmarks.stacks.scripted_engine"
    async with python_process("engine", module, str(INTERVAL_MS), directory=directory) as process:
        where = (await process.wait_for_line(r"listening engine=(\S+)"))[1]
        target = Target(f"http://{where}/v1", model_name(INTERVAL_MS))
        yield EngineAtWork(target, process.pid, SharedData(directory), (catalog,))


@asynccontextmanager
async def real_engine(choice: EngineChoice, slots: int, directory: Path) -> AsyncIterator[EngineAtWork]:
    """Run a real one with its model, as a node would start it, and with so many slots.

    Raises:
        BenchmarkError: engine or model is not here, or does not start.
    """
    async with choice.bare(directory).process(EngineOptions(slots=slots)) as engine:
        yield EngineAtWork(engine.target, engine.pid, choice.data, choice.catalog)


@asynccontextmanager
async def all_sides(
    engine: EngineAtWork, peers: Sequence[Peer], directory: Path
) -> AsyncIterator[tuple[Side, ...]]:
    """Start what stands before the engine and wait until each side answers; the engine's own port is first.

    Raises:
        EndpointUnusable: a side does not answer.
        ProcessFailed: a process did not come up.
    """
    async with AsyncExitStack() as cleanup:
        sides = [Side(ENGINE, engine.target, (engine.tree,))]
        sides += await cleanup.enter_async_context(_ours(engine, folder(directory, "porten")))
        for peer in peers:
            place = folder(directory, peer.name)
            side = await cleanup.enter_async_context(peer.running(engine.target, place))
            sides.append(Side(side.name, side.target, (*side.trees, engine.tree)))
        for side in sides:
            await _answering(side)
        yield tuple(sides)


@asynccontextmanager
async def _ours(engine: EngineAtWork, directory: Path) -> AsyncIterator[list[Side]]:
    catalog = ",".join(map(str, engine.catalog))
    settings = _node_settings(engine, directory) | ({"PORTEN_CATALOG": catalog} if catalog else {})
    hub_settings = {"PORTEN_HUB_CATALOG": catalog} if catalog else {}
    async with run_stack(directory, engine.data, node_settings=settings, hub_settings=hub_settings) as stack:
        node = WatchedTree("node", stack.node.process.pid)
        local = (await stack.node.process.wait_for_line(STARTED))[1]
        model, hub = engine.target.model, WatchedTree("hub", stack.hub.process.pid)
        yield [
            Side("node", Target(f"{local}/v1", model), (node, engine.tree)),
            Side("hub", Target(stack.base_url, model, api_key=await _key(stack)), (hub, node, engine.tree)),
        ]


def _node_settings(engine: EngineAtWork, directory: Path) -> dict[str, str]:
    model = engine.target.model
    endpoint: dict[str, object] = {
        "url": engine.target.base_url,
        "models": {model: model},
        "slots": MOST_AT_ONCE,
    }
    if engine.target.api_key:
        key = directory / "engine-key"
        key.touch(mode=0o600)
        key.write_text(engine.target.api_key, encoding="utf-8")
        endpoint["api_key_file"] = str(key)
    return {
        "PORTEN_ENDPOINTS": json.dumps({"measured": endpoint}),
        "PORTEN_MODELS": model,
        "PORTEN_YIELD_GPU": "false",
        "PORTEN_YIELD_WHEN_HOT": "false",
    }


async def _key(stack: Stack) -> str:
    async with workplace(hub_config(stack.hub), time.time) as place:
        return await limited_key(place)


async def _answering(side: Side) -> None:
    """Ask until it answers: a node looks at its endpoint now and then, a peer has yet to start."""
    workload, never = Workload(Fixed(4), Fixed(1)), asyncio.Event()
    began = time.monotonic()
    async with Client(side.target) as client:
        while True:
            try:
                await probe(client, side.target, workload, stop=never)
            except EndpointUnusable:
                if time.monotonic() - began > _PATIENCE_S:
                    raise
                await asyncio.sleep(_PAUSE_S)
            else:
                return
