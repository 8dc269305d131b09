"""What leaves next: three lanes, control before interactive before bulk, coalesced into messages.

Owns the order of frames and their packing. Must not know what frames mean, sockets or clocks.

A stream is interactive until more than one quantum of it waits, then bulk until it has drained: a
token never stands behind an image. A message carries at most one quantum of bulk, at its end, so
that what becomes ready meanwhile waits for 16 KiB and not for 64.
"""

from collections import deque

from tunnel.frames import (
    FLAG_FIN,
    FLAG_TRAILERS,
    HEADER,
    HEADER_BYTES,
    MAX_DATA_BYTES,
    SEND_MESSAGE_BYTES,
    FrameType,
)
from tunnel.state import Lane, StreamState

_DATA = int(FrameType.DATA)
_FULL = SEND_MESSAGE_BYTES - HEADER_BYTES - MAX_DATA_BYTES  # beyond it a DATA frame may not fit


class Outbox:
    """The frames a session has yet to send."""

    __slots__ = ("_bulk", "_control", "_interactive", "control_bytes", "ended", "unblocked")

    def __init__(self) -> None:
        self._control: deque[bytes] = deque()
        self._interactive: deque[StreamState] = deque()
        self._bulk: deque[StreamState] = deque()
        self.control_bytes = 0
        self.ended: list[StreamState] = []  # streams whose FIN went into a message
        self.unblocked: list[StreamState] = []  # streams whose waiting sender has room again

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send."""
        return bool(self._control or self._interactive or self._bulk)

    def depth(self) -> tuple[int, int]:
        """How many streams wait, interactive and bulk."""
        return len(self._interactive), len(self._bulk)

    def add_control(self, frame: bytes) -> None:
        """Queue a frame ahead of all data."""
        self._control.append(frame)
        self.control_bytes += len(frame)

    def schedule(self, stream: StreamState) -> None:
        """Queue a stream that has bytes or a FIN pending."""
        if stream.lane is Lane.IDLE:
            stream.lane = Lane.INTERACTIVE
            self._interactive.append(stream)

    def remove(self, stream: StreamState) -> None:
        """Forget what a stream still had to send."""
        stream.pending.clear()
        stream.pending_bytes = 0
        stream.fin_pending = False
        if stream.lane is Lane.INTERACTIVE:
            self._interactive.remove(stream)
        elif stream.lane is Lane.BULK:
            self._bulk.remove(stream)
        stream.lane = Lane.IDLE

    def next_message(self) -> bytes:
        """Pack the most urgent frames into one message of at most 64 KiB; empty when there is none."""
        parts: list[bytes | memoryview] = []
        size = self._pack_control(parts)
        interactive = self._interactive
        while interactive and size <= _FULL:
            stream = interactive.popleft()
            if stream.pending_bytes > MAX_DATA_BYTES:
                stream.lane = Lane.BULK
                self._bulk.append(stream)
            else:
                size += self._pack_data(stream, parts)
        if self._bulk and size <= _FULL:
            self._pack_data(self._bulk.popleft(), parts)
        return b"".join(parts)

    def _pack_control(self, parts: list[bytes | memoryview]) -> int:
        control = self._control
        size = 0
        while control and size + len(control[0]) <= SEND_MESSAGE_BYTES:
            size += len(control[0])
            parts.append(control.popleft())
        self.control_bytes -= size
        return size

    def _pack_data(self, stream: StreamState, parts: list[bytes | memoryview]) -> int:
        """Append one DATA frame of a stream; put it back in line when bytes remain."""
        pending = stream.pending
        if stream.pending_bytes <= MAX_DATA_BYTES:
            chunks = list(pending)
            pending.clear()
            count = stream.pending_bytes
            stream.pending_bytes = 0
            stream.lane = Lane.IDLE
            flags, trailers = self._end(stream)
        else:
            chunks, count = _take_quantum(stream)
            self._bulk.append(stream)
            flags, trailers = 0, b""
        if stream.blocked:
            stream.blocked = False
            self.unblocked.append(stream)
        length = count + len(trailers)
        parts.append(HEADER.pack(_DATA, flags, len(trailers), stream.id, length))
        parts += chunks
        if trailers:
            parts.append(trailers)
        return HEADER_BYTES + length

    def _end(self, stream: StreamState) -> tuple[int, bytes]:
        if not stream.fin_pending:
            return 0, b""
        stream.fin_pending = False
        self.ended.append(stream)
        trailers = stream.trailers_pending
        return (FLAG_FIN | FLAG_TRAILERS if trailers else FLAG_FIN), trailers


def _take_quantum(stream: StreamState) -> tuple[list[bytes | memoryview], int]:
    """Take exactly one quantum from a stream that has more, splitting its last chunk without a copy."""
    pending = stream.pending
    chunks: list[bytes | memoryview] = []
    room = MAX_DATA_BYTES
    while room:
        chunk = pending.popleft()
        if len(chunk) > room:
            view = memoryview(chunk)
            pending.appendleft(view[room:])
            chunk = view[:room]
        chunks.append(chunk)
        room -= len(chunk)
    stream.pending_bytes -= MAX_DATA_BYTES
    return chunks, MAX_DATA_BYTES
