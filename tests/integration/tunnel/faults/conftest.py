"""What the fault matrix needs: a line that can be frozen, throttled and cut, and a count of what is left.

The relay is real TCP on loopback. Its latency is one way; its receive buffers are as small as its rate is,
so that a sender feels the line and not the kernel's generosity.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import psutil
import pytest

from tunnel.identity import NodeIdentity
from tunnel.messages import Head, Open
from tunnel.session import HubSession, InboundStream, Stream

Handler = Callable[[InboundStream], Awaitable[None]]
OK = Head(status=200, headers=())
RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, no seconds
CHUNK_BYTES = 2 * 1024
CHUNKS_IN_FLIGHT = 256
NARROW_BUFFER_BYTES = 16 * 1024
ETHERNET_SEGMENT_BYTES = 1448  # loopback's 64 KiB in a small window would wait for delayed acknowledgements
SETTLING_S = 5.0


class Line:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, sink: socket.socket, relay: "Relay") -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._source = source
        self._sink = sink
        self._relay = relay
        self._free_at = 0.0
        self._flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_IN_FLIGHT)

    async def run(self) -> None:
        """Carry bytes until the source ends."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._take())
            both.create_task(self._give())

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        data = b"more"
        while data:
            await self.flowing.wait()
            try:
                data = await loop.sock_recv(self._source, CHUNK_BYTES)
            except OSError:
                await self.flowing.wait()  # the end of a frozen connection is not heard of either
                raise
            await self.flowing.wait()
            await self._serialise(len(data))
            await self._flight.put((loop.time() + self._relay.latency_s, data))

    async def _serialise(self, count: int) -> None:
        """Take as long as the line's rate says."""
        if self._relay.mbit_s is not None:
            now = asyncio.get_running_loop().time()
            self._free_at = max(self._free_at, now) + count * 8 / (self._relay.mbit_s * 1e6)
            await asyncio.sleep(self._free_at - now)

    async def _give(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await self._flight.get()
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            await self.flowing.wait()
            if not data:
                self._sink.shutdown(socket.SHUT_WR)
                return
            await loop.sock_sendall(self._sink, data)


class Relay:
    """A TCP relay on loopback.

    Args:
        port: Where connections go; may be changed later. None: nobody is there.
        mbit_s: The rate of each direction; None for no limit.
        latency_s: One way.
        source: The address that connections come from.
    """

    def __init__(
        self,
        port: int | None,
        *,
        mbit_s: float | None = None,
        latency_s: float = 0.0,
        source: str = "127.0.0.1",
    ) -> None:
        self.target = port
        self.mbit_s = mbit_s
        self.latency_s = latency_s
        self._source = source
        self._listener = self._socket()
        self._lines: dict[str, set[Line]] = {"up": set(), "down": set()}
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self._listener.getsockname()[1]}/tunnel"

    async def start(self) -> None:
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(256)
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def freeze(self, *directions: str) -> None:
        """Let nothing through on the connections that stand; `up` is from the node to the Hub."""
        for direction in directions:
            for line in self._lines[direction]:
                line.flowing.clear()

    def thaw(self) -> None:
        for line in self._lines["up"] | self._lines["down"]:
            line.flowing.set()

    async def cut(self) -> None:
        """End every connection with RST, both ways."""
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        await self.cut()

    def _accept(self) -> None:
        """Take what knocks: no task, which might be cancelled with a connection in hand."""
        try:
            near, _ = self._listener.accept()
        except BlockingIOError:
            return  # who knocked has left
        near.setblocking(False)
        connection = asyncio.create_task(self._carry(near))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _task: _reset(near))

    async def _carry(self, near: socket.socket) -> None:
        far = self._socket()
        far.bind((self._source, 0))
        lines = {"up": Line(near, far, self), "down": Line(far, near, self)}
        try:
            if self.target is None:
                raise ConnectionRefusedError
            await asyncio.get_running_loop().sock_connect(far, ("127.0.0.1", self.target))
            for direction, line in lines.items():
                self._lines[direction].add(line)
            async with asyncio.TaskGroup() as both:
                for line in lines.values():
                    both.create_task(line.run())
        except* OSError:
            pass  # one end has gone; so does the other, below
        finally:
            for direction, line in lines.items():
                self._lines[direction].discard(line)
            for end in (near, far):
                _reset(end)

    def _socket(self) -> socket.socket:
        made = socket.socket()
        made.setblocking(False)
        if self.mbit_s is not None:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, NARROW_BUFFER_BYTES)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, ETHERNET_SEGMENT_BYTES)
        return made


def _reset(end: socket.socket) -> None:
    """Close a connection with RST; one that is closed already stays so."""
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
    end.close()


@pytest.fixture(autouse=True)
async def nothing_leaks() -> AsyncIterator[None]:
    """No task and no file descriptor outlives a test."""
    before, process = asyncio.all_tasks(), psutil.Process()
    files = process.num_fds()
    yield
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLING_S):
            while process.num_fds() > files or len(asyncio.all_tasks()) > len(before):
                await asyncio.sleep(0.01)
    assert not {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert process.num_fds() <= files


@pytest.fixture
async def start_hub(new_hub: Callable[..., Any]) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Start a Hub's side; it is closed after the test."""
    sides = []

    async def start(*, port: int = 0, **limits: Any) -> Any:
        sides.append(new_hub(**limits))
        await sides[-1].server.start("127.0.0.1", port)
        return sides[-1]

    yield start
    for side in sides:
        await side.server.close()


@pytest.fixture
async def start_node(new_node: Callable[..., Any]) -> AsyncIterator[Callable[..., Any]]:
    """Start a node's side with a handler; it is stopped after the test."""
    sides = []

    def start(url: str, identity: NodeIdentity, handler: Handler, **options: Any) -> Any:
        sides.append(new_node(url, identity, **options))
        sides[-1].handler = handler
        sides[-1].start()
        return sides[-1]

    yield start
    for side in sides:
        await side.stop()


@pytest.fixture
async def new_relay() -> AsyncIterator[Callable[..., Awaitable[Relay]]]:
    relays: list[Relay] = []

    async def make(port: int, **options: Any) -> Relay:
        relays.append(Relay(port, **options))
        await relays[-1].start()
        return relays[-1]

    yield make
    for relay in relays:
        await relay.close()


async def read_whole(stream: Stream) -> bytes:
    parts = []
    while (data := await stream.receive()) is not None:
        parts.append(data)
    return b"".join(parts)


@pytest.fixture
def read_all() -> Callable[[Stream], Awaitable[bytes]]:
    return read_whole


@pytest.fixture
def ask(request_open: Callable[..., Open]) -> Callable[..., Awaitable[bytes]]:
    """One whole exchange: give the answer's body."""

    async def asking(session: HubSession, uid: str = "req_a", body: bytes = b"{}") -> bytes:
        stream = await session.open(request_open(uid))
        await stream.send(body, fin=True)
        return await read_whole(stream)

    return asking


@pytest.fixture
def answer() -> Handler:
    """A handler that reads the question and answers with it."""

    async def answering(stream: InboundStream) -> None:
        body = await read_whole(stream)
        await stream.send_head(OK)
        await stream.send(b"whole: " + body, fin=True)

    return answering
