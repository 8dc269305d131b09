"""A stream as its users hold it: bytes with backpressure, over one StreamState of the protocol.

Owns waiting: who reads, who writes, and how each learns of the end. Must not know channels or
other streams. One task reads and one task writes a stream at a time.
"""

import asyncio
from collections.abc import Callable

from tunnel.errors import ProtocolViolation, ResetCode, StreamReset
from tunnel.messages import Head, Open, Trailers
from tunnel.protocol import TunnelProtocol
from tunnel.roles import NodeProtocol
from tunnel.state import StreamState

JOINED_BYTES = 4096  # small pieces that wait are joined: an object for each would take many times their bytes


class Stream:
    """One exchange inside a session, seen from either end.

    Attributes:
        id: Unique in its session, never reused.
        open: The request as the Hub opened it.
        finished: True once `receive` has given every byte up to FIN: the bytes just returned are
            then the last.
    """

    def __init__(self, protocol: TunnelProtocol, state: StreamState, wake: Callable[[], None]) -> None:
        self.id = state.id
        self.open: Open = state.open
        self.finished = False
        self._protocol = protocol
        self._state = state
        self._wake = wake  # tells the session's writer that there is something to send
        self._inbox: list[bytes] = []
        self._ended = False  # FIN has arrived, perhaps unread yet
        self._error: StreamReset | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        state.user = self

    @property
    def trailers(self) -> Trailers | None:
        """What rode in the peer's last frame; set as soon as that frame has arrived."""
        return self._state.trailers

    async def send(self, data: bytes, *, fin: bool = False, trailers: Trailers | None = None) -> None:
        """Queue bytes; waits while the peer grants no credit or 64 KiB of them wait here.

        Args:
            data: May be empty with `fin`.
            fin: These are the last bytes of this direction.
            trailers: Only with `fin`: rides in the very last frame.

        Raises:
            StreamReset: the stream was reset, or its session is gone (SESSION_LOST).
            ProtocolViolation: (local) before the head, or after FIN.
        """
        self._require_alive()
        rest: bytes | memoryview = data
        if len(data) > self._protocol.room(self._state):
            rest = await self._send_most(data)
        self._protocol.send_data(self._state, rest, fin=fin, trailers=trailers)
        self._wake()

    def offer(self, data: bytes) -> bool:
        """Queue bytes if that needs no waiting. False queues nothing: `send` waits, or says why it cannot."""
        if self._error is not None or len(data) > self._protocol.room(self._state):
            return False
        self._protocol.send_data(self._state, data)
        self._wake()
        return True

    async def receive(self) -> bytes | None:
        """Give all bytes that wait, at least one; None after FIN.

        What arrived before a reset is still given; then it is raised.

        Raises:
            StreamReset: the stream was reset, or its session is gone (SESSION_LOST).
        """
        while not self._inbox:
            if self._ended:
                self.finished = True
                return None
            self._require_alive()
            reader = self._new_reader()
            try:
                await reader
            finally:
                self._reader = None
        inbox = self._inbox
        data = inbox[0] if len(inbox) == 1 else b"".join(inbox)
        inbox.clear()
        self.finished = self._ended
        if self._protocol.consumed(self._state, len(data)):
            self._wake()
        return data

    def reset(self, code: ResetCode, reason: str = "") -> None:
        """End both directions at once, and drop what was not read; a stream that is over stays over."""
        self._drop_unread()
        if self._protocol.reset(self._state, code, reason):
            self._wake()
            self.fail(StreamReset(code, reason))

    # -- for the session ------------------------------------------------------------------------

    def feed(self, data: bytes, *, fin: bool) -> None:
        """Take bytes that arrived."""
        if data:
            inbox = self._inbox
            if inbox and len(inbox[-1]) + len(data) <= JOINED_BYTES:
                inbox[-1] += data
            else:
                inbox.append(data)
        self._ended = fin
        self._notify_reader()

    def fail(self, error: StreamReset) -> None:
        """Take the news that the stream is over before its time."""
        if self._error is None:
            self._error = error
        self._notify_reader()
        self.unblock()

    def unblock(self) -> None:
        """Let a waiting sender look again."""
        writer = self._writer
        if writer is not None and not writer.done():
            writer.set_result(None)

    def discard(self) -> None:
        """Nobody will read any more: drop what is here and what still comes."""
        unread = self._take_unread()
        self._protocol.discard(self._state, unread)
        self._wake()

    # -- waiting --------------------------------------------------------------------------------

    def _drop_unread(self) -> None:
        if unread := self._take_unread():
            self._protocol.consumed(self._state, unread)

    def _take_unread(self) -> int:
        unread = sum(map(len, self._inbox))
        self._inbox.clear()
        return unread

    async def _send_most(self, data: bytes) -> memoryview:
        """Send all but what fits at once, piece by piece as there is room."""
        rest = memoryview(data)
        while len(rest) > (room := self._protocol.room(self._state)):
            if room > 0:
                self._protocol.send_data(self._state, rest[:room])
                rest = rest[room:]
                self._wake()
            await self._writable()
            self._require_alive()
        return rest

    def _require_alive(self) -> None:
        if self._error is not None:
            raise StreamReset(self._error.code, self._error.reason)

    async def _writable(self) -> None:
        if self._writer is not None:
            raise ProtocolViolation(f"two tasks send on stream {self.id}", local=True)
        loop, credit = self._loop, self._state.credit
        stalled_at = loop.time() if credit.used == credit.granted else None
        self._state.blocked = True
        self._writer = loop.create_future()
        try:
            await self._writer
        finally:
            self._writer = None
            if stalled_at is not None:
                self._protocol.stats.credit_stall_s += loop.time() - stalled_at

    def _new_reader(self) -> "asyncio.Future[None]":
        """Set when there is something to read. To be awaited by the caller: a coroutine costs each chunk."""
        if self._reader is not None:
            raise ProtocolViolation(f"two tasks receive on stream {self.id}", local=True)
        self._reader = self._loop.create_future()
        return self._reader

    def _notify_reader(self) -> None:
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)


class OutboundStream(Stream):
    """The Hub's end."""

    def __init__(self, protocol: TunnelProtocol, state: StreamState, wake: Callable[[], None]) -> None:
        super().__init__(protocol, state, wake)
        self._head: Head | None = None
        self._opened_at = asyncio.get_running_loop().time()

    async def head(self) -> Head:
        """Wait for the response's head.

        Raises:
            StreamReset: the stream was reset, or its session is gone (SESSION_LOST).
        """
        while self._head is None:
            self._require_alive()
            reader = self._new_reader()
            try:
                await reader
            finally:
                self._reader = None
        return self._head

    def feed_head(self, head: Head) -> None:
        """Take the head that arrived."""
        self._protocol.stats.on_head(asyncio.get_running_loop().time() - self._opened_at)
        self._head = head
        self._notify_reader()


class InboundStream(Stream):
    """The node's end."""

    _protocol: NodeProtocol

    async def send_head(self, head: Head) -> None:
        """Queue the response's head; once, before any data.

        Raises:
            StreamReset: the stream was reset, or its session is gone (SESSION_LOST).
            ProtocolViolation: (local) it was sent already, or is over 32 KiB.
        """
        self._require_alive()
        self._protocol.send_head(self._state, head)
        self._wake()
