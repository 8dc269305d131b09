"""The streams of a session: which live, which were reset lately, which id came last.

Owns who a frame's stream id refers to. Must not know frames' payloads, bytes or clocks.
"""

from tunnel.errors import ProtocolViolation
from tunnel.state import StreamState

TOMBSTONE_S = 60.0  # how long late frames of a reset stream are dropped in silence


class StreamTable:
    """Live streams by id, and tombstones of those that were reset.

    A stream that ended in order needs no tombstone: nothing but a CREDIT or a RESET may cross its
    end, and ids are never reused.
    """

    __slots__ = ("_tombstones", "last", "live")

    def __init__(self) -> None:
        self.live: dict[int, StreamState] = {}
        self.last = 0
        self._tombstones: dict[int, float] = {}  # id -> when it is forgotten, in that order

    def begin(self, stream_id: int) -> None:
        """Note that the Hub used an id.

        Raises:
            ProtocolViolation: it does not rise.
        """
        if stream_id <= self.last:
            raise ProtocolViolation(f"stream id {stream_id} after {self.last}")
        self.last = stream_id

    def add(self, stream: StreamState) -> None:
        """Enter a stream that was opened."""
        self.last = stream.id
        self.live[stream.id] = stream

    def holds(self, stream: StreamState) -> bool:
        """Say whether a stream still lives."""
        return self.live.get(stream.id) is stream

    def find(self, stream_id: int, now: float, *, late: bool) -> StreamState | None:
        """Find a frame's stream; None when the frame is merely late.

        Args:
            stream_id: From the frame's header.
            now: Seconds.
            late: Whether such a frame may cross the orderly end of its stream.

        Raises:
            ProtocolViolation: the stream was never opened, or ended too long ago.
        """
        stream = self.live.get(stream_id)
        if stream is not None:
            return stream
        if not 0 < stream_id <= self.last:
            raise ProtocolViolation(f"frame for stream {stream_id}, which was never opened")
        if not late and self._tombstones.get(stream_id, 0.0) <= now:
            raise ProtocolViolation(f"frame for stream {stream_id}, which had ended")
        return None

    def retire_if_over(self, stream: StreamState) -> None:
        """Take a stream off the books once both halves have ended."""
        if stream.over:
            del self.live[stream.id]

    def bury(self, stream_id: int, now: float) -> None:
        """Take a reset (or refused) stream off the books and remember it for a while."""
        self.live.pop(stream_id, None)
        tombstones = self._tombstones
        while tombstones and next(iter(tombstones.values())) <= now:
            del tombstones[next(iter(tombstones))]
        tombstones[stream_id] = now + TOMBSTONE_S
