"""Many nodes at the end of bare tunnels, in one process: each dials, reports and answers as it is asked.

Owns their identities and the few things they do with a stream. Counts what became of their dials, and tells
it as a line of JSON on stdout. Must not know Hub, engines or HTTP.
"""

import asyncio
import logging
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.stacks.schedules import model_name
from benchmarks.tunnel.node import snapshot
from runtime.hub_http import AGENT
from runtime.status import to_status
from tunnel.client import TunnelClient
from tunnel.identity import NodeIdentity
from tunnel.messages import Head
from tunnel.session import InboundStream

CPU: Final = "/cpu"
PRODUCE: Final = "/produce"
SINK: Final = "/sink"
AT_ONCE: Final = 32
"""Nodes that dial for the first time at once: the rush that is measured follows the server's loss."""
_HEAD: Final = Head(status=200, headers=(("content-type", "text/event-stream"),))


@cache
def chance(size: int) -> bytes:
    """So many random bytes, the same each time: a page of zeros would be nowhere in memory to copy from."""
    return secrets.token_bytes(size)


class Produce(msgspec.Struct, frozen=True):
    """Pieces of `piece_bytes`, one in each turn of the loop, for so many seconds; at least one."""

    seconds: float
    piece_bytes: int

    async def feed(self, send: Callable[[bytes], Awaitable[None]]) -> int:
        """Send them; the bytes that went."""
        piece = chance(self.piece_bytes)
        until, size = time.monotonic() + self.seconds, 0
        while True:
            await send(piece)
            size += len(piece)
            if time.monotonic() >= until:
                return size
            await asyncio.sleep(0)  # the other streams have their piece in the same turn


class Dials(msgspec.Struct):
    """What became of the dials since the last time that all nodes stood.

    Attributes:
        welcomed: sessions begun.
        refused: answered with a status, mostly 503 and when to come back.
        unanswered: ended without an answer, by reason.
    """

    welcomed: int = 0
    refused: int = 0
    unanswered: dict[str, int] = msgspec.field(default_factory=dict)


class DialCounter(logging.Handler):
    """Counts failed dials by what the tunnel's client logs of them."""

    def __init__(self) -> None:
        super().__init__()
        self.dials = Dials()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of one line."""
        event = getattr(record, "event", "")
        if event == "dial_refused":
            self.dials.refused += 1
        elif event == "dial_failed":
            reason = str(getattr(record, "error", "")).partition(":")[0]
            self.dials.unanswered[reason] = self.dials.unanswered.get(reason, 0) + 1


class Nodes:
    """Nodes with these ids, the benchmark's key, and so many models that each offers."""

    def __init__(self, key: Ed25519PrivateKey, url: str, ids: Sequence[str], *, models: int) -> None:
        self._count = len(ids)
        self._standing = 0
        self._first_dials = asyncio.Semaphore(AT_ONCE)
        self._started: list[TunnelClient] = []
        self._counter = DialCounter()
        for name in ("tunnel.client", "tunnel.dial"):
            logger = logging.getLogger(name)
            logger.setLevel(logging.INFO)
            logger.addHandler(self._counter)
            logger.propagate = False
        status = to_status(snapshot([model_name(pace) for pace in range(1, models + 1)]))
        self._clients = [
            TunnelClient(
                urls=(url,),
                identity=NodeIdentity(node_id, key),
                instance_id=secrets.token_hex(8),
                handler=answer,
                status=lambda: status,
                on_welcome=lambda _welcome: None,
                on_state=_Watch(self._moved),
                agent=AGENT,
            )
            for node_id in ids
        ]

    async def run(self, stop: asyncio.Event) -> None:
        """Dial in a few at a time, and keep all of them dialled in until `stop` is set.

        Raises:
            ExceptionGroup: a node gave up, which none ever should.
        """
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(self._start(group))
            await stop.wait()
            starting.cancel()
            await asyncio.gather(*(client.stop() for client in self._started))

    async def _start(self, group: asyncio.TaskGroup) -> None:
        for client in self._clients:
            await self._first_dials.acquire()
            group.create_task(client.run())
            self._started.append(client)

    def _moved(self, change: int) -> None:
        self._standing += change
        if change > 0:
            self._first_dials.release()
        dials = self._counter.dials
        dials.welcomed += change > 0
        if self._standing == self._count and change > 0:
            _say("result " + msgspec.json.encode(dials).decode())
            self._counter.dials = Dials()


class _Watch:
    """Turns one client's states into +1 when it stands and -1 when it no longer does."""

    def __init__(self, moved: Callable[[int], None]) -> None:
        self._moved = moved
        self._stands = False

    def __call__(self, state: str) -> None:
        stands = state == "connected"
        if stands != self._stands:
            self._stands = stands
            self._moved(1 if stands else -1)


async def answer(stream: InboundStream) -> None:
    """What a node of the benchmark does with a stream, by its path."""
    if stream.open.path == SINK:
        while await stream.receive() is not None:
            pass
        await stream.send_head(_HEAD)
    elif stream.open.path == PRODUCE:
        asked = msgspec.json.decode(await _read_all(stream), type=Produce)
        await stream.send_head(_HEAD)
        await asked.feed(stream.send)
    else:
        await stream.send_head(_HEAD)
        await stream.send(f"{time.process_time():.6f}".encode())
    await stream.send(b"", fin=True)


async def _read_all(stream: InboundStream) -> bytes:
    pieces: list[bytes] = []
    while (piece := await stream.receive()) is not None:
        pieces.append(piece)
    return b"".join(pieces)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def serve(key: Ed25519PrivateKey, url: str, ids: Sequence[str], models: int) -> None:
    """Run the nodes until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await Nodes(key, url, ids, models=models).run(stop)


def main(arguments: Sequence[str]) -> None:
    """The process. Arguments: files with the benchmark's key and the nodes' ids, the URL, models of each."""
    key_file, ids_file, url, models = arguments
    key = Ed25519PrivateKey.from_private_bytes(Path(key_file).read_bytes())
    ids = Path(ids_file).read_text(encoding="utf-8").split()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(key, url, ids, int(models)))


if __name__ == "__main__":
    main(sys.argv[1:])
