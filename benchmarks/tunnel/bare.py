"""The tunnel by itself: chunks and bodies over one, the memory of many, and the rush after a Hub's loss.

Owns which processes take part in each and what their readings come to. The Hub's end and the nodes are two
processes with a real websocket between them on loopback. Must not know how results are shown.
"""

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.machine.processes import ManagedProcess
from benchmarks.tunnel.nodes import Dials
from benchmarks.tunnel.server import Carried, Carry, Held, Hold, Task
from benchmarks.tunnel.stack import nodes_process, python_process

PATIENCE_S: Final = 900.0
_UNHURRIED: Final = 100_000.0  # handshakes a second: as many as come
_NOBODY_LISTENED: Final = "ConnectionRefusedError"
_MODELS: Final = 3
_NEVER: Final = r"(?!)"
"""Matches no line: waiting for it is waiting for the process's end."""


@dataclass(frozen=True, slots=True)
class IdleSessions:
    """The Hub's end while so many idle sessions stand. Bytes; `before` is the process without any."""

    count: int
    before: int
    memory: int

    @property
    def each(self) -> float:
        """Bytes for one session."""
        return (self.memory - self.before) / self.count


@dataclass(frozen=True, slots=True)
class Storm:
    """All nodes come back after their Hub was killed and another listens at the same address.

    Attributes:
        nodes: how many.
        handshakes_per_s: what the Hub lets in.
        seconds: from its listening until all stand and have reported.
        before: bytes of the new Hub's process without any session.
        peak_memory: bytes it took at most.
        hub_cpu_s: CPU seconds it took.
        refused: dials told to come back later.
        nobody_there: dials while nothing listened.
        lost: dials that ended without an answer though it listened, by reason.
        standing: how many stood after so many seconds, from time to time and in the end.
    """

    nodes: int
    handshakes_per_s: float
    seconds: float
    before: int
    peak_memory: int
    hub_cpu_s: float
    refused: int
    nobody_there: int
    lost: dict[str, int]
    standing: tuple[tuple[float, int], ...] = ()


class BareTunnels:
    """Runs the measurements one by one, in a directory of its own."""

    def __init__(self, directory: Path, progress: Progress) -> None:
        self._directory = directory
        self._progress = progress
        self._key_file = directory / "tunnel-key"
        self._key_file.touch(mode=0o600)
        self._key_file.write_bytes(secrets.token_bytes(32))

    async def carry(self, task: Carry) -> Carried:
        """Chunks and bodies over one session.

        Raises:
            ProcessFailed: one of the processes ended early.
        """
        estimate_s = 2 * task.seconds + 0.1 * task.bodies + 1
        async with self._server(task) as (server, url), self._nodes(url, 0, 1):
            self._progress.phase("Chunks and bodies over one tunnel", Limit(seconds=estimate_s))
            said = await server.wait_for_line(r"^result (.*)$", timeout_s=PATIENCE_S)
        return msgspec.json.decode(said[1], type=Carried)

    async def idle(self, counts: Sequence[int]) -> list[IdleSessions]:
        """The memory of so many idle sessions; counts rise.

        Raises:
            ProcessFailed: one of the processes ended early.
        """
        found: list[IdleSessions] = []
        async with AsyncExitStack() as stack:
            task = Hold(counts=tuple(counts), handshakes_per_s=_UNHURRIED)
            server, url = await stack.enter_async_context(self._server(task))
            before = (await self._empty(server)).memory
            nodes: list[ManagedProcess] = []
            standing = 0
            for count in counts:
                more = self._nodes(url, standing, count - standing)
                nodes.append(await stack.enter_async_context(more))
                held = await self._held(server, nodes, count, f"Idle sessions: {count}")
                found.append(IdleSessions(count, before, held.memory))
                standing = count
        return found

    async def storms(self, nodes: int, rates: Sequence[float]) -> list[Storm]:
        """Kill the Hub under all its nodes and see them come back, once at each rate of admission.

        Raises:
            ProcessFailed: one of the processes ended early.
        """
        async with AsyncExitStack() as stack:
            first, url = await stack.enter_async_context(
                self._server(Hold(counts=(nodes,), handshakes_per_s=_UNHURRIED))
            )
            dialling = await stack.enter_async_context(self._nodes(url, 0, nodes))
            await self._held(first, [dialling], nodes, f"Before the storm: {nodes} nodes")
            await first.kill()
            return [await self._storm(url, dialling, nodes, rate) for rate in rates]

    async def _storm(self, url: str, dialling: ManagedProcess, nodes: int, rate: float) -> Storm:
        said = dialling.lines_so_far()
        port = urlsplit(url).port or 0
        async with self._server(Hold(counts=(nodes,), port=port, handshakes_per_s=rate)) as (server, _):
            before = await self._empty(server)
            label = f"Storm of {nodes} nodes at {rate:g} handshakes/s"
            held = await self._held(server, [dialling], nodes, label)
            told = await dialling.wait_for_line(r"^result (.*)$", after=said, timeout_s=PATIENCE_S)
            await server.kill()
        dials = msgspec.json.decode(told[1], type=Dials)
        nobody_there = dials.unanswered.pop(_NOBODY_LISTENED, 0)
        return Storm(
            nodes=nodes,
            handshakes_per_s=rate,
            seconds=held.seconds,
            before=before.memory,
            peak_memory=held.peak_memory,
            hub_cpu_s=held.cpu_s - before.cpu_s,
            refused=dials.refused,
            nobody_there=nobody_there,
            lost=dials.unanswered,
            standing=(*_standing(server), (held.seconds, nodes)),
        )

    async def _empty(self, server: ManagedProcess) -> Held:
        return msgspec.json.decode((await server.wait_for_line(_reading(0)))[1], type=Held)

    async def _held(
        self, server: ManagedProcess, nodes: Sequence[ManagedProcess], count: int, label: str
    ) -> Held:
        """The server's reading at this count, once its nodes have brought it there."""
        self._progress.phase(label, Limit(requests=count))
        said = asyncio.create_task(server.wait_for_line(_reading(count), timeout_s=PATIENCE_S))
        ends = [asyncio.create_task(each.wait_for_line(_NEVER, timeout_s=PATIENCE_S)) for each in nodes]
        watching = asyncio.create_task(self._watch(server, count))
        try:
            await asyncio.wait({said, *ends}, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                if end.done():
                    await end  # raises: a process of nodes has ended, and its last lines say why
            return msgspec.json.decode((await said)[1], type=Held)
        finally:
            for task in (said, *ends, watching):
                task.cancel()
            await asyncio.gather(said, *ends, watching, return_exceptions=True)

    async def _watch(self, server: ManagedProcess, count: int) -> None:
        while True:
            await asyncio.sleep(0.5)
            if standing := _standing(server):
                self._progress.reached(standing[-1][1], count, "nodes")

    @asynccontextmanager
    async def _server(self, task: Task) -> AsyncIterator[tuple[ManagedProcess, str]]:
        arguments = (str(self._key_file), msgspec.json.encode(task).decode())
        process = python_process("hub end", "benchmarks.tunnel.server", *arguments, directory=self._directory)
        async with process:
            yield process, (await process.wait_for_line(r"^listening tunnel=(\S+)"))[1]

    def _nodes(self, url: str, first: int, count: int) -> ManagedProcess:
        ids = [f"node_{number:020d}" for number in range(first, first + count)]
        return nodes_process(self._key_file, ids, url, models=_MODELS, directory=self._directory)


def _standing(server: ManagedProcess) -> list[tuple[float, int]]:
    found = re.findall(r"^standing (\d+) after (\S+) s$", server.output, re.MULTILINE)
    return [(float(seconds), int(count)) for count, seconds in found]


def _reading(count: int) -> str:
    return rf'^result (\{{"count":{count},.*)$'
