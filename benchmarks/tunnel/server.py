"""The Hub's end of bare tunnels, a process of its own: a listener that lets every node of the benchmark in.

Owns what is done with the sessions: one carries chunks and bodies as quickly as it can, or many are held and
their memory is read. Tells what it saw as lines of JSON on stdout. Must not know Hub, policies or HTTP.
"""

import asyncio
import gc
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import psutil
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from benchmarks.tunnel.nodes import CPU, PRODUCE, SINK, Produce, chance
from tunnel.gate import DEFAULT_LIMITS, Grant, TunnelLimits
from tunnel.messages import Open, Status
from tunnel.server import TunnelServer
from tunnel.session import HubSession, OutboundStream

BODY_BYTES: Final = 8 * 1024 * 1024
_FOREVER: Final = 1e12
_TELL_EVERY_S: Final = 0.25


class Carry(msgspec.Struct, frozen=True, tag="carry"):
    """Carry chunks for `seconds` one way, then as long both ways; then `bodies` of 8 MiB each way."""

    chunk_bytes: int = 200
    streams: int = 64
    seconds: float = 2.0
    bodies: int = 0


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Let nodes in and say how the process is when as many stand as each of `counts`.

    Attributes:
        port: 0 takes a free one.
        handshakes_per_s: how many are let in a second; twice as many at once.
    """

    counts: tuple[int, ...]
    port: int = 0
    handshakes_per_s: float = DEFAULT_LIMITS.handshakes_per_s


Task = Carry | Hold


class ChunksCarried(msgspec.Struct, frozen=True):
    """Chunks that arrived and the CPU seconds of both processes meanwhile."""

    ways: int
    chunks: int
    seconds: float
    hub_cpu_s: float
    node_cpu_s: float


class BodiesCarried(msgspec.Struct, frozen=True):
    """Seconds for each body of 8 MiB, to the node and from it."""

    to_node_s: tuple[float, ...]
    from_node_s: tuple[float, ...]


class Carried(msgspec.Struct, frozen=True):
    """What a `Carry` came to."""

    chunks: tuple[ChunksCarried, ...]
    bodies: BodiesCarried | None


class Held(msgspec.Struct, frozen=True):
    """How the process was when so many sessions stood. Bytes, and seconds since it listened."""

    count: int
    seconds: float
    memory: int
    peak_memory: int
    cpu_s: float


class KnowsAll:
    """Lets in whoever signs with the benchmark's key, under any node id."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._keys = (key,)
        self._generation = 0

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:  # noqa: ARG002
        """The one key."""
        return self._keys

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:  # noqa: ARG002
        """The next generation. The credential has a real one's length."""
        self._generation += 1
        return Grant(self._generation, "e" * 500)


class Listener:
    """The tunnel's server with what stands, and who waits for it."""

    def __init__(self, key: Ed25519PublicKey, limits: TunnelLimits) -> None:
        self.standing: set[HubSession] = set()
        self._reported = 0
        self._changed = asyncio.Event()
        self.began = 0.0
        self.server = TunnelServer(
            hub_id="hub_benchmark",
            host_names=("127.0.0.1",),
            authenticator=KnowsAll(key),
            on_session=self.standing.add,
            on_status=self._on_status,
            on_closed=self._on_closed,
            limits=limits,
        )

    async def listen(self, port: int = 0) -> None:
        """Let nodes in from now on, and say where."""
        await self.server.start("127.0.0.1", port)
        self.began = time.monotonic()
        _say(f"listening tunnel=ws://127.0.0.1:{self.server.port}")

    async def until(self, count: int) -> None:
        """Wait until so many sessions stand and their nodes have reported; tell now and then how many do."""
        told = 0.0
        while self._reported < count:
            self._changed.clear()
            await self._changed.wait()
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                _say(f"standing {self._reported} after {told - self.began:.3f} s")

    def _on_status(self, session: HubSession, status: Status) -> None:
        if status.sequence == 1 and session in self.standing:
            self._reported += 1
            self._changed.set()

    def _on_closed(self, session: HubSession) -> None:
        self.standing.discard(session)
        self._reported -= session.status is not None


@dataclass(frozen=True, slots=True)
class Carrier:
    """Drives one session."""

    session: HubSession
    task: Carry

    async def run(self) -> Carried:
        """Do it all."""
        await self._chunks(0.2, ways=2)  # caches and windows warm up
        ways = (1, 2) if self.task.seconds else ()
        chunks = [await self._chunks(self.task.seconds, ways=each) for each in ways]
        bodies = await self._bodies() if self.task.bodies else None
        return Carried(tuple(chunks), bodies)

    async def _chunks(self, seconds: float, *, ways: int) -> ChunksCarried:
        """Nodes send for so long; where it is both ways, so do we."""
        asked = Produce(seconds=seconds, piece_bytes=self.task.chunk_bytes)
        node_cpu, hub_cpu, began = await self._node_cpu(), time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(self._drain(asked)) for _ in range(self.task.streams)]
            if ways == 2:
                work += [group.create_task(self._feed(asked)) for _ in range(self.task.streams)]
        took, hub_cpu = time.monotonic() - began, time.process_time() - hub_cpu
        node_cpu = await self._node_cpu() - node_cpu
        carried = sum(each.result() for each in work) // asked.piece_bytes
        return ChunksCarried(ways, carried, took, hub_cpu, node_cpu)

    async def _drain(self, asked: Produce) -> int:
        stream = await self._open(PRODUCE)
        await stream.send(msgspec.json.encode(asked), fin=True)
        return await _read_all(stream)

    async def _feed(self, asked: Produce) -> int:
        stream = await self._open(SINK)
        size = await asked.feed(stream.send)
        await stream.send(b"", fin=True)
        await _read_all(stream)
        return size

    async def _bodies(self) -> BodiesCarried:
        body = chance(BODY_BYTES)
        whole = msgspec.json.encode(Produce(seconds=0.0, piece_bytes=BODY_BYTES))
        for path, first in ((SINK, body), (PRODUCE, whole)):
            await self._timed(path, first)  # the node makes its own body, both touch their memory
        to_node = [await self._timed(SINK, body) for _ in range(self.task.bodies)]
        from_node = [await self._timed(PRODUCE, whole) for _ in range(self.task.bodies)]
        return BodiesCarried(tuple(to_node), tuple(from_node))

    async def _timed(self, path: str, body: bytes) -> float:
        began = time.perf_counter()
        stream = await self._open(path)
        await stream.send(body, fin=True)
        await _read_all(stream)
        return time.perf_counter() - began

    async def _node_cpu(self) -> float:
        stream = await self._open(CPU)
        await stream.send(b"", fin=True)
        await stream.head()
        return float(await stream.receive() or b"nan")

    async def _open(self, path: str) -> OutboundStream:
        return await self.session.open(
            Open(
                uid="req_benchmark",
                generation=self.session.generation,
                method="POST",
                path=path,
                headers=(("content-type", "application/json"),),
                deadline=_FOREVER,
                ticket="",
            )
        )


async def _read_all(stream: OutboundStream) -> int:
    """The bytes of an answer."""
    await stream.head()
    size = 0
    while (piece := await stream.receive()) is not None:
        size += len(piece)
    return size


async def carry(task: Carry, key: Ed25519PublicKey) -> None:
    """Wait for one node, drive its session, tell the result."""
    listener = Listener(key, DEFAULT_LIMITS)
    await listener.listen()
    await listener.until(1)
    _tell(await Carrier(next(iter(listener.standing)), task).run())
    await listener.server.close()


async def hold(task: Hold, key: Ed25519PublicKey) -> None:
    """Hold sessions until SIGTERM; tell of each count that is reached."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    rate = task.handshakes_per_s
    limits = TunnelLimits(
        handshakes_per_s=rate, handshake_burst=int(2 * rate), handshakes_per_address=max(task.counts)
    )
    listener = Listener(key, limits)
    await listener.listen(task.port)
    telling = asyncio.create_task(_tell_counts(listener, task.counts))
    await stop.wait()
    telling.cancel()
    await listener.server.close()


async def _tell_counts(listener: Listener, counts: Sequence[int]) -> None:
    for count in (0, *counts):
        await listener.until(count)
        _tell(reading(count, time.monotonic() - listener.began))


def reading(count: int, seconds: float) -> Held:
    """The process as it is now."""
    gc.collect()
    return Held(count, seconds, psutil.Process().memory_info().rss, peak_memory(), time.process_time())


def peak_memory() -> int:
    """The most bytes that this process has held."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes where there is no /proc
    # Not what getrusage says: there the parent's size counts too, as it was before the child's own program.
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _tell(result: Carried | Held) -> None:
    _say("result " + msgspec.json.encode(result).decode())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> None:
    """The process. Arguments: the file of the benchmark's key, and the task as JSON."""
    key_file, text = arguments
    key = Ed25519PrivateKey.from_private_bytes(Path(key_file).read_bytes()).public_key()
    task = msgspec.json.decode(text, type=Task)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(carry(task, key) if isinstance(task, Carry) else hold(task, key))


if __name__ == "__main__":
    main(sys.argv[1:])
