"""The tunnel's rules without its I/O: bytes and `now` in, events and bytes to send out.

Owns the session's streams, what each side may say when, and the answers the protocol gives by
itself (CREDIT, RESET). Must not know sockets, tasks, clocks or what a request means. Here is what both
ends do; what only one does is in `roles.py`.

Every method is synchronous and leaves the protocol consistent. After a ProtocolViolation with
`local=False` the session must be ended; nothing else may be called.
"""

from collections.abc import Callable
from random import random

from tunnel.errors import ProtocolViolation, ResetCode, StreamReset
from tunnel.events import (
    CreditReceived,
    DataReceived,
    GoawayReceived,
    ResetReceived,
    TunnelEvent,
)
from tunnel.flow import ByteBudget, TokenBucket
from tunnel.frames import (
    CREDIT_OFFSET,
    FIRST_IGNORABLE_TYPE,
    FLAG_FIN,
    FLAG_TRAILERS,
    MAX_DATA_BYTES,
    PING_BODY,
    Frame,
    FrameType,
    decode,
    encode,
)
from tunnel.liveness import DEFAULT_TIMES, Liveness, LivenessTimes
from tunnel.messages import (
    Goaway,
    Message,
    Reset,
    Trailers,
    decode_message,
    encode_message,
)
from tunnel.outbox import Outbox
from tunnel.state import Half, Signal, StreamState
from tunnel.stats import TunnelStats
from tunnel.table import StreamTable

MAX_STREAMS = 256  # concurrent in a session; a node may advertise fewer
MAX_PENDING_BYTES = 64 * 1024  # of one stream, queued and not yet in a message
MAX_CONTROL_BACKLOG = 1024 * 1024  # bytes; a peer that asks and never reads is cut off
MAX_TRAILERS_BYTES = 4 * 1024
RESETS_PER_S = 20.0
RESET_BURST = 100  # on top of the streams that may be open: all of them may always be reset at once


_DATA = int(FrameType.DATA)

Receiver = Callable[[Frame], TunnelEvent | None]


class TunnelProtocol:
    """One session's state machine, as far as both ends share it.

    Args:
        generation: The session's fencing number, checked in every PING and PONG.
        now: Seconds on the clock all later `now` come from.
        max_streams: How many may be open at once.
        times: Liveness intervals.
        budget: What all sessions of this process may let their peers send together.
        stats: Where things are counted.
        jitter: Gives numbers in [0, 1).
    """

    pings = False  # whether this end sends PING
    rations_live = True  # whether a RESET of a live stream counts as part of a flood

    def __init__(
        self,
        *,
        generation: int,
        now: float,
        max_streams: int = MAX_STREAMS,
        times: LivenessTimes = DEFAULT_TIMES,
        budget: ByteBudget | None = None,
        stats: TunnelStats | None = None,
        jitter: Callable[[], float] = random,
    ) -> None:
        self.generation = generation
        self.max_streams = max_streams
        self._budget = budget or ByteBudget()
        self.stats = stats or TunnelStats()
        self._table = StreamTable()
        self.streams = self._table.live
        self.draining = False
        self.liveness = Liveness(times, pings=self.pings, now=now, jitter=jitter)
        self._now = now
        self._outbox = Outbox()
        self._resets = TokenBucket(rate=RESETS_PER_S, burst=RESET_BURST + max_streams)
        self._pings = 0
        self._pinged_at = now
        self._receivers = self._all_receivers()

    # -- bytes in -------------------------------------------------------------------------------

    def receive(self, message: bytes, now: float) -> list[TunnelEvent]:
        """Take one websocket message; give what happened, in order.

        Raises:
            ProtocolViolation: the peer broke the rules; the session must end.
        """
        self._now = self.liveness.heard = now
        events: list[TunnelEvent] = []
        try:
            self._take(message, events)
        except ProtocolViolation as violation:
            violation.before = events
            raise
        return events

    def _take(self, message: bytes, events: list[TunnelEvent]) -> None:
        for frame in decode(message):
            if frame.type == _DATA and not frame.flags and (data := self._plain_data(frame)) is not None:
                events.append(data)
                continue
            receiver = self._receivers.get(frame.type)
            if receiver is not None:
                event = receiver(frame)
                if event is not None:
                    events.append(event)
            elif frame.type < FIRST_IGNORABLE_TYPE:
                raise ProtocolViolation(f"frame of type {frame.type:#04x} the wrong way")
        if self._outbox.control_bytes > MAX_CONTROL_BACKLOG:
            raise ProtocolViolation("asks for more answers than it reads")

    # -- bytes out ------------------------------------------------------------------------------

    def data_to_send(self, now: float) -> bytes:
        """Give the next websocket message, at most 64 KiB of all that is ready; empty if nothing is."""
        self._now = now
        message = self._outbox.next_message()
        ended = self._outbox.ended
        if ended:
            for stream in ended:
                stream.sent(Signal.FIN)
                self._table.retire_if_over(stream)
            ended.clear()
        return message

    @property
    def wants_to_send(self) -> bool:
        """Whether `data_to_send` would give anything."""
        return self._outbox.waiting

    def take_unblocked(self) -> list[StreamState]:
        """Give the streams whose blocked sender has room since the last call."""
        unblocked = self._outbox.unblocked
        if unblocked:
            self._outbox.unblocked = []
        return unblocked

    # -- time -----------------------------------------------------------------------------------

    def next_deadline(self) -> float:
        """When `tick` must be called next, at the latest."""
        return self.liveness.next_deadline()

    def tick(self, now: float) -> str | None:
        """Let time pass: queue a PING when due; say why the peer is dead, if it is."""
        self._now = now
        reason = self.liveness.dead(now)
        if reason is None and self.liveness.ping_due(now):
            self._pings += 1
            self._pinged_at = now
            body = PING_BODY.pack(self._pings.to_bytes(8, "big"), self.generation)
            self._outbox.add_control(encode(FrameType.PING, payload=body))
        return reason

    # -- streams --------------------------------------------------------------------------------

    def room(self, stream: StreamState) -> int:
        """How many bytes `send_data` would take now: within the peer's credit and our own buffer."""
        credit = stream.credit
        return min(credit.granted - credit.used, MAX_PENDING_BYTES - stream.pending_bytes)

    def send_data(
        self,
        stream: StreamState,
        data: bytes | memoryview,
        *,
        fin: bool = False,
        trailers: Trailers | None = None,
    ) -> None:
        """Queue bytes, at most `room` of them; `fin` ends our half, with trailers if given.

        Raises:
            StreamReset: the stream is over.
            ProtocolViolation: (local) before HEAD, after FIN, beyond the credit, or bad trailers.
        """
        self._require_live(stream)
        if stream.sending is not Half.BODY or stream.fin_pending:
            raise ProtocolViolation(f"data on stream {stream.id} before HEAD or after FIN", local=True)
        count = len(data)
        if count > stream.credit.granted - stream.credit.used:
            raise ProtocolViolation(f"data on stream {stream.id} beyond its credit", local=True)
        if fin:
            stream.trailers_pending = _encode_trailers(trailers)
            stream.fin_pending = True
        elif not count:
            return
        if count:
            stream.credit.used += count
            stream.pending.append(data)
            stream.pending_bytes += count
        self._outbox.schedule(stream)

    def consumed(self, stream: StreamState, count: int) -> bool:
        """Count bytes the reader took; True when that queued a CREDIT."""
        offset = stream.window.consume(count)
        if offset is None or not self._table.holds(stream):
            return False
        self._outbox.add_control(encode(FrameType.CREDIT, stream.id, CREDIT_OFFSET.pack(offset)))
        return True

    def discard(self, stream: StreamState, unread: int) -> None:
        """Let what still arrives be dropped; `unread` bytes had arrived and were not consumed."""
        stream.discarding = True
        self.consumed(stream, unread)

    def abandon(self) -> None:
        """The session is over: no stream of it holds anything any more."""
        for stream in self.streams.values():
            stream.window.abandon()
        self.streams.clear()

    def reset(self, stream: StreamState, code: ResetCode, reason: str = "") -> bool:
        """End both halves at once; False when the stream was over already."""
        if not self._table.holds(stream):
            return False
        self._bury(stream)
        self._send_reset(stream.id, code, reason)
        return True

    def waiting(self) -> tuple[int, int, int]:
        """How many streams wait to send, interactive and bulk, and how many bytes are unsent in all."""
        pending = sum(stream.pending_bytes for stream in self.streams.values())
        return (*self._outbox.depth(), pending + self._outbox.control_bytes)

    @property
    def last_stream(self) -> int:
        """The highest stream id seen so far."""
        return self._table.last

    # -- session --------------------------------------------------------------------------------

    def send_goaway(self, goaway: Goaway) -> None:
        """Queue a GOAWAY; a node refuses what is opened after it."""
        self.draining = True
        self._send_message(FrameType.GOAWAY, goaway)

    def _send_message(self, kind: FrameType, message: Message) -> None:
        self._outbox.add_control(encode(kind, payload=encode_message(message)))

    # -- receivers, one a frame type --------------------------------------------------------------

    def _all_receivers(self) -> dict[int, Receiver]:
        return {
            FrameType.DATA: self._on_data,
            FrameType.CREDIT: self._on_credit,
            FrameType.RESET: self._on_reset,
            FrameType.GOAWAY: lambda frame: GoawayReceived(decode_message(Goaway, frame.payload)),
        }

    def _check_generation(self, frame: Frame) -> None:
        if len(frame.payload) != PING_BODY.size:
            raise ProtocolViolation("PING or PONG of another length than 16")
        _, generation = PING_BODY.unpack(frame.payload)
        if generation != self.generation:
            raise ProtocolViolation(f"speaks of generation {generation}, this is {self.generation}")

    def _plain_data(self, frame: Frame) -> DataReceived | None:
        """What nearly every frame of an answer is, in one step; None leaves it to `_on_data`."""
        stream = self.streams.get(frame.stream)
        if stream is None or stream.receiving is not Half.BODY or stream.discarding:
            return None
        data = frame.payload
        if not 0 < len(data) <= MAX_DATA_BYTES:
            return None
        stream.window.accept(len(data))
        return DataReceived(stream, data, fin=False)

    def _on_data(self, frame: Frame) -> DataReceived | None:
        stream = self.streams.get(frame.stream) or self._table.find(frame.stream, self._now, late=False)
        if stream is None:
            return None
        fin = bool(frame.flags & FLAG_FIN)
        if fin or stream.receiving is not Half.BODY:
            stream.received(Signal.FIN if fin else Signal.DATA)
        data = self._body(stream, frame)
        if not data and not fin:
            raise ProtocolViolation(f"empty data on stream {stream.id}")
        stream.window.accept(len(data))
        if fin:
            stream.window.close()
            self._table.retire_if_over(stream)
        if stream.discarding:
            self.consumed(stream, len(data))
            return None
        return DataReceived(stream, data, fin)

    def _body(self, stream: StreamState, frame: Frame) -> bytes:
        """Split trailers from a DATA payload and check its length."""
        data = frame.payload
        if frame.flags & FLAG_TRAILERS:
            split = len(data) - frame.aux
            if not frame.flags & FLAG_FIN or split < 0 or frame.aux > MAX_TRAILERS_BYTES:
                raise ProtocolViolation(f"misplaced trailers on stream {stream.id}")
            stream.trailers = decode_message(Trailers, data[split:])
            data = data[:split]
        if len(data) > MAX_DATA_BYTES:
            raise ProtocolViolation(f"{len(data)} bytes in one DATA frame")
        return data

    def _on_credit(self, frame: Frame) -> CreditReceived | None:
        stream = self._table.find(frame.stream, self._now, late=True)
        if len(frame.payload) != CREDIT_OFFSET.size:
            raise ProtocolViolation("CREDIT of another length than 8")
        if stream is None or not stream.credit.grant(CREDIT_OFFSET.unpack(frame.payload)[0]):
            return None
        if not stream.blocked:
            return None
        stream.blocked = False
        return CreditReceived(stream)

    def _on_reset(self, frame: Frame) -> ResetReceived | None:
        reset = decode_message(Reset, frame.payload)
        stream = self._table.find(frame.stream, self._now, late=True)
        if (stream is None or self.rations_live) and not self._resets.take(self._now):
            raise ProtocolViolation("resets streams faster than allowed")
        if stream is None:
            return None
        self._bury(stream)
        code = ResetCode.from_wire(reset.code)
        self.stats.resets["received", code.name] += 1
        return ResetReceived(stream, code, reset.reason)

    # -- the life of a stream -----------------------------------------------------------------------

    def _require_live(self, stream: StreamState) -> None:
        if not self._table.holds(stream):
            raise StreamReset(ResetCode.CANCELLED, "the stream is over")

    def _bury(self, stream: StreamState) -> None:
        """Take a reset stream off the books; what its peer sent before it knew is dropped."""
        self._table.bury(stream.id, self._now)
        stream.window.close()
        self._outbox.remove(stream)

    def _send_reset(self, stream_id: int, code: ResetCode, reason: str) -> None:
        self.stats.resets["sent", code.name] += 1
        payload = encode_message(Reset(code=int(code), reason=reason[:256]))
        self._outbox.add_control(encode(FrameType.RESET, stream_id, payload))


def _encode_trailers(trailers: Trailers | None) -> bytes:
    if trailers is None:
        return b""
    encoded = encode_message(trailers)
    if len(encoded) > MAX_TRAILERS_BYTES:
        raise ProtocolViolation(f"trailers of {len(encoded)} bytes", local=True)
    return encoded
