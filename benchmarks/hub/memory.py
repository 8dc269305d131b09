"""What a Hub holds in memory while many nodes are connected and report.

Owns the fleet for it: nodes in the Hub's own database, dialled in over real tunnels by one process. Must not
know requests or how results are shown.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.machine.processes import ManagedProcess
from benchmarks.stacks.stack import HubProcess
from benchmarks.tunnel.stack import enroll, hub_config, nodes_process
from hub.operations import workplace

MODELS_OF_A_NODE: Final = 20
_PATIENCE_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class HubMemory:
    """Bytes of the Hub's process (RSS) without any node and with so many."""

    nodes: int
    before_bytes: int
    bytes: int


async def measure_memory(directory: Path, nodes: int, settle_s: float, progress: Progress) -> HubMemory:
    """Connect so many nodes to a Hub of its own, let them report for `settle_s`, and read its memory.

    Raises:
        ProcessFailed: the Hub or the nodes ended early.
    """
    async with AsyncExitStack() as cleanup:
        hub = HubProcess(directory)
        await hub.init()
        key = Ed25519PrivateKey.generate()
        key_file = directory / "nodes-key"
        key_file.touch(mode=0o600)
        key_file.write_bytes(key.private_bytes_raw())
        progress.phase(f"Enrolling {nodes} nodes", Limit(requests=1))
        ids = await _enroll(hub, key, nodes, progress)
        await hub.start()
        cleanup.push_async_callback(hub.stop)
        before = resident_bytes(hub.process)
        progress.phase(f"Connecting {nodes} nodes", Limit(seconds=nodes / 50 + settle_s))
        dialling = nodes_process(key_file, ids, hub.tunnel_url, models=MODELS_OF_A_NODE, directory=directory)
        await cleanup.enter_async_context(dialling)
        await dialling.wait_for_line(r"^result ", timeout_s=_PATIENCE_S)
        await asyncio.sleep(settle_s)
        return HubMemory(nodes, before, resident_bytes(hub.process))


async def _enroll(hub: HubProcess, key: Ed25519PrivateKey, count: int, progress: Progress) -> Sequence[str]:
    ids: list[str] = []
    async with workplace(hub_config(hub), time.time) as place:
        while len(ids) < count:
            ids.append((await enroll(place, key, f"benchmark-{len(ids)}")).id)
            progress.reached(len(ids), count, "nodes")
    return ids


def resident_bytes(process: ManagedProcess) -> int:
    """Physical memory of a process and its children."""
    root = psutil.Process(process.pid)
    return sum(each.memory_info().rss for each in (root, *root.children(recursive=True)))
