"""The byte pipe below a session: whole messages in, whole messages out.

Owns the `Channel` seam, its in-memory pair and its websocket. Must not know frames: a message is
just bytes here.
"""

import asyncio
import contextlib
import socket
from collections import deque
from typing import Protocol

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tunnel.errors import ChannelClosed, ProtocolViolation

NORMAL_CLOSURE = 1000
ABNORMAL_CLOSURE = 1006  # never on the wire: hang up without a word
CLOSE_TIMEOUT_S = 2.0
MEMORY_MESSAGES = 16  # in flight in one direction of an in-memory pair
WRITE_LIMIT_BYTES = 4 * 1024  # ours above the kernel's; a frame queued here cannot be overtaken
NOTSENT_LOWAT_BYTES = 8 * 1024
MAX_UNSENT_BYTES = 512 * 1024  # several times what we let wait there; the rest are answers to websocket pings


class Channel(Protocol):
    """What a session needs of a connection."""

    async def send(self, message: bytes) -> None:
        """Send one message; waits while the pipe is full.

        Raises:
            ChannelClosed: the pipe is closed.
        """
        ...

    async def receive(self) -> bytes:
        """Give the next message.

        Raises:
            ChannelClosed: the pipe is closed and everything was read.
            ProtocolViolation: the peer sent something that is not a binary message.
        """
        ...

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close both directions; idempotent. ABNORMAL_CLOSURE hangs up at once."""
        ...


class _Bounded(Connection):
    """Hangs up on who asks by websocket pings and does not read the answers: the library queues them all."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.transport.abort()


class BoundedServerConnection(_Bounded, ServerConnection):
    """The Hub's end of a websocket."""


class BoundedClientConnection(_Bounded, ClientConnection):
    """The node's end of a websocket."""


class WebSocketChannel:
    """A channel over an established websocket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _tune(connection)

    async def send(self, message: bytes) -> None:
        """Send one binary message."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as closed:
            raise _closed(closed) from closed

    async def receive(self) -> bytes:
        """Give the next binary message."""
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise _closed(closed) from closed
        if isinstance(message, str):
            raise ProtocolViolation("a text message")
        return message

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close politely within two seconds, then hang up."""
        try:
            if code != ABNORMAL_CLOSURE:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._connection.close(code, reason[:100])
        except TimeoutError:
            pass  # a peer that does not read cannot be told; hang up below
        finally:
            self._connection.transport.abort()


def _closed(closed: ConnectionClosed) -> ChannelClosed:
    frame = closed.rcvd or closed.sent
    return ChannelClosed(frame.code, frame.reason) if frame else ChannelClosed()


def _tune(connection: Connection) -> None:
    """Keep what nobody can overtake any more small: no Nagle, little unsent data in the kernel."""
    sock = connection.transport.get_extra_info("socket")
    if sock is None:
        return
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    with contextlib.suppress(OSError):  # a unix socket has neither
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if lowat is not None:
            sock.setsockopt(socket.IPPROTO_TCP, lowat, NOTSENT_LOWAT_BYTES)


class MemoryPipe:
    """One direction of an in-memory pair: bounded, ordered, reliable."""

    def __init__(self) -> None:
        self._messages: deque[bytes] = deque()
        self._closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    async def put(self, message: bytes) -> None:
        """Hand a message over; waits while too many are unread."""
        self._require_open()
        self._messages.append(message)
        self._notify()
        while len(self._messages) > MEMORY_MESSAGES:
            self._require_open()
            await self._changed.wait()

    async def get(self) -> bytes:
        """Take the next message; what was handed over before the end is still given."""
        while not self._messages:
            self._require_open()
            await self._changed.wait()
        message = self._messages.popleft()
        self._notify()
        return message

    def close(self, code: int, reason: str) -> None:
        """End it; the first words stand."""
        self._closed = self._closed or (code, reason)
        self._notify()

    def _require_open(self) -> None:
        if self._closed is not None:
            raise ChannelClosed(*self._closed)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryChannel:
    """One end of an in-memory pair."""

    def __init__(self, incoming: MemoryPipe, outgoing: MemoryPipe) -> None:
        self._incoming = incoming
        self._outgoing = outgoing

    async def send(self, message: bytes) -> None:
        """Send one message."""
        await self._outgoing.put(message)

    async def receive(self) -> bytes:
        """Give the next message."""
        return await self._incoming.get()

    async def close(self, code: int = NORMAL_CLOSURE, reason: str = "") -> None:
        """Close both directions."""
        self._incoming.close(code, reason)
        self._outgoing.close(code, reason)


def memory_pair() -> tuple[MemoryChannel, MemoryChannel]:
    """Make two connected channels."""
    one, other = MemoryPipe(), MemoryPipe()
    return MemoryChannel(one, other), MemoryChannel(other, one)
