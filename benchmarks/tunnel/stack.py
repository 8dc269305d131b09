"""A real Hub, a relaying node and a scripted engine on this machine, each a process of its own.

Owns their start, their end, and the records by which they know each other. What is measured on them is
`benchmarks.tunnel_relay`'s matter.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.generator.target import Target
from benchmarks.machine.cpu import WatchedTree
from benchmarks.machine.processes import ManagedProcess, clean_environment
from benchmarks.overhead.turns import Side
from benchmarks.stacks.schedules import model_name
from benchmarks.stacks.stack import HubProcess
from hub.config import HubConfig, load_config
from hub.identity import load_hub_key
from hub.keys import issue_key
from hub.operations import Workplace, workplace
from hub.policy import PRIVATE, TrustClass
from hub.quotas import LARGEST
from hub.storage.records import Node
from runtime.identity import HubFacts, Identity, IdentityStore
from tunnel.identity import encode_public_key
from tunnel.protocol import MAX_STREAMS

_REGION: Final = "eu-de"
_ENTRY: Final = """
[[models]]
id = "{model}"
name = "Scripted"
context_length = 8192
slots = {slots}
capabilities = ["chat"]
[models.source]
kind = "file"
path = "/never/read.gguf"
"""


@dataclass(frozen=True, slots=True)
class RelayStack:
    """What runs: the Hub, the node's relay and the engine, and a key that may use the node."""

    hub: ManagedProcess
    node: ManagedProcess
    engine: ManagedProcess
    api_url: str
    engine_url: str
    api_key: str

    def sides(self, interval_ms: int) -> tuple[Side, Side]:
        """The engine itself, and the engine behind Hub and node."""
        model = model_name(interval_ms)
        watched = {"hub": self.hub, "node": self.node, "engine": self.engine}
        trees = tuple(WatchedTree(name, process.pid) for name, process in watched.items())
        via = Target(f"{self.api_url}/v1", model, api_key=self.api_key)
        return Side("direct", Target(f"{self.engine_url}/v1", model)), Side("via", via, trees)


def python_process(name: str, module: str, *arguments: str, directory: Path) -> ManagedProcess:
    """A process that runs one of our modules; its output goes to a file in `directory`."""
    argv = [sys.executable, "-m", module, *arguments]
    return ManagedProcess(name, argv, log=directory / f"{name}.log", environment=clean_environment())


def nodes_process(
    key_file: Path, ids: Sequence[str], url: str, *, models: int, directory: Path
) -> ManagedProcess:
    """A process that dials in as many nodes, all with the key in `key_file`, each offering `models`."""
    listed = directory / f"nodes-{ids[0]}"
    listed.write_text("\n".join(ids), encoding="utf-8")
    arguments = (str(key_file), str(listed), url, str(models))
    return python_process("nodes", "benchmarks.tunnel.nodes", *arguments, directory=directory)


@asynccontextmanager
async def run_relay_stack(directory: Path, intervals_ms: Sequence[int]) -> AsyncIterator[RelayStack]:
    """Start it all and wait until the Hub offers the node's models; stop everything on leaving.

    Raises:
        ProcessFailed: a part did not come up.
    """
    async with AsyncExitStack() as cleanup:
        engine = python_process("engine", "benchmarks.stacks.scripted_engine", directory=directory)
        await cleanup.enter_async_context(engine)
        engine_at = (await engine.wait_for_line(r"listening engine=(\S+)"))[1]
        hub = HubProcess(directory, PORTEN_HUB_CATALOG=str(_catalog(directory, intervals_ms)))
        await hub.init()
        await hub.start()
        cleanup.push_async_callback(hub.stop)
        async with workplace(hub_config(hub), time.time) as place:
            api_key = await limited_key(place)
            identity = await _enroll_relay(place, hub)
        await asyncio.to_thread(_save, identity, directory / "node")
        paces = [str(interval) for interval in intervals_ms]
        node = python_process(
            "node", "benchmarks.tunnel.node", str(directory / "node"), engine_at, *paces, directory=directory
        )
        await cleanup.enter_async_context(node)
        await node.wait_for_line("tunnel connected")
        yield RelayStack(hub.process, node, engine, hub.api_url, f"http://{engine_at}", api_key)


def hub_config(hub: HubProcess) -> HubConfig:
    """The settings by which commands find the Hub's data."""
    return load_config(environ={}, options={"data_dir": hub.data}).config


def _catalog(directory: Path, intervals_ms: Sequence[int]) -> Path:
    file = directory / "catalog.toml"
    entries = (_ENTRY.format(model=model_name(interval), slots=MAX_STREAMS) for interval in intervals_ms)
    file.write_text("".join(entries), encoding="utf-8")
    return file


async def limited_key(place: Workplace) -> str:
    """A key with every kind of limit."""
    home = await place.organisation(None)
    issued = await issue_key(
        *(place.storage, home.id),
        name="benchmark",
        now=place.clock(),
        regions=["eu"],
        limits=LARGEST,  # each is counted, and none is ever reached
    )
    return issued.secret


async def enroll(place: Workplace, key: Ed25519PrivateKey, name: str) -> Node:
    """Store a node as an approval does."""
    home = await place.organisation(None)
    return await place.storage.nodes.create(
        home.id,
        name=name,
        public_key=encode_public_key(key.public_key()),
        region=_REGION,
        region_confirmed=True,
        trust=TrustClass.TRUSTED,
        sharing=PRIVATE,
        machine={},
        now=place.clock(),
    )


async def _enroll_relay(place: Workplace, hub: HubProcess) -> Identity:
    """Store a node, and make the identity that it would then fetch."""
    key = Ed25519PrivateKey.generate()
    node = await enroll(place, key, "benchmark")
    hub_key = await asyncio.to_thread(load_hub_key, hub_config(hub).key_file)
    facts = HubFacts(
        hub_url=hub.api_url,
        hub_id=await place.storage.settings.hub_id(),
        public_key=encode_public_key(hub_key.public_key()),
        tunnel_urls=(hub.tunnel_url,),
        node_id=node.id,
        name=node.name,
    )
    return Identity.checked(key, place.enrollment.credential_for(node), facts)


def _save(identity: Identity, data_dir: Path) -> None:
    data_dir.mkdir(mode=0o700)
    IdentityStore(data_dir).save(identity)
