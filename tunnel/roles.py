"""What only one end of the tunnel does: the Hub opens and asks, the node answers and reports.

Owns which frames each end takes. Must not know sockets, tasks, clocks or what a request means.
"""

from typing import TypeVar

import msgspec

from tunnel.errors import ProtocolViolation, ResetCode, TooManyStreams
from tunnel.events import (
    CommandReceived,
    EventReceived,
    HeadReceived,
    NoticeReceived,
    StatusReceived,
    StreamOpened,
)
from tunnel.flow import (
    INITIAL_WINDOW,
    MAX_OUTSTANDING_CREDIT,
    REQUEST_WINDOW_LIMIT,
    ReceiveWindow,
    SendCredit,
    TokenBucket,
)
from tunnel.frames import MAX_STREAM_ID, Frame, FrameType, encode
from tunnel.messages import (
    Command,
    Event,
    Head,
    Notice,
    Open,
    Status,
    decode_message,
    encode_message,
)
from tunnel.protocol import Receiver, TunnelProtocol
from tunnel.state import Half, Signal, StreamState

REPORTS_PER_S = 300.0  # STATUS and EVENT: sixteen jobs that each tell ten times a second, and room
REPORT_BURST = 600

M = TypeVar("M", Status, Event)


class HubProtocol(TunnelProtocol):
    """The Hub's end: opens streams, pings, hears reports."""

    pings = True
    rations_live = False  # it answers an OPEN of ours: our own pace bounds those

    def open_stream(self, request: Open) -> StreamState:
        """Open a stream. Its `window` is a wish, 0 for the usual: OPEN carries what the budget gives.

        Raises:
            TooManyStreams: the session is full, or has used up its ids.
            ProtocolViolation: (local) the request does not fit a control frame.
        """
        if len(self.streams) >= self.max_streams or self._table.last >= MAX_STREAM_ID:
            raise TooManyStreams(f"{len(self.streams)} streams are open")
        wish = request.window or INITIAL_WINDOW
        size = self._budget.begin(wish)
        stream = StreamState(
            self._table.last + 1,
            msgspec.structs.replace(request, window=size),
            sending=Half.BODY,
            window=ReceiveWindow(size, wish, self._budget),
            credit=SendCredit(),
        )
        try:
            payload = encode_message(stream.open)
        except ProtocolViolation:
            stream.window.abandon()
            raise
        self._table.add(stream)
        self._outbox.add_control(encode(FrameType.OPEN, stream.id, payload))
        return stream

    def send_command(self, command: Command) -> None:
        """Queue a COMMAND."""
        self._send_message(FrameType.COMMAND, command)

    def send_notice(self, notice: Notice) -> None:
        """Queue a NOTICE, which a node of a release that does not know it ignores."""
        self._send_message(FrameType.NOTICE, notice)

    def reset_orphan(self, stream_id: int) -> None:
        """Reset a stream only the peer still believes in."""
        if 0 < stream_id <= self._table.last and stream_id not in self.streams:
            self._send_reset(stream_id, ResetCode.CANCELLED, "unknown stream")

    def _all_receivers(self) -> dict[int, Receiver]:
        self._reports = TokenBucket(rate=REPORTS_PER_S, burst=REPORT_BURST)
        return super()._all_receivers() | {
            FrameType.PONG: self._on_pong,
            FrameType.STATUS: lambda frame: StatusReceived(self._report(Status, frame)),
            FrameType.EVENT: lambda frame: EventReceived(self._report(Event, frame)),
            FrameType.HEAD: self._on_head,
        }

    def _report(self, kind: type[M], frame: Frame) -> M:
        if not self._reports.take(self._now):
            raise ProtocolViolation("reports faster than allowed")
        return decode_message(kind, frame.payload)

    def _on_pong(self, frame: Frame) -> None:
        self._check_generation(frame)
        if frame.payload[:8] == self._pings.to_bytes(8, "big"):
            self.stats.on_rtt(self._now - self._pinged_at)

    def _on_head(self, frame: Frame) -> HeadReceived | None:
        stream = self._table.find(frame.stream, self._now, late=False)
        if stream is None:
            return None
        stream.received(Signal.HEAD)
        return HeadReceived(stream, decode_message(Head, frame.payload))


class NodeProtocol(TunnelProtocol):
    """The node's end: answers streams and pings, reports."""

    def send_head(self, stream: StreamState, head: Head) -> None:
        """Queue the response's head.

        Raises:
            StreamReset: the stream is over.
            ProtocolViolation: (local) it was sent already, or is too large.
        """
        self._require_live(stream)
        payload = encode_message(head)
        stream.sent(Signal.HEAD)
        self._outbox.add_control(encode(FrameType.HEAD, stream.id, payload))

    def send_status(self, status: Status) -> None:
        """Queue a STATUS."""
        self._send_message(FrameType.STATUS, status)

    def send_event(self, event: Event) -> None:
        """Queue an EVENT."""
        self._send_message(FrameType.EVENT, event)

    def _all_receivers(self) -> dict[int, Receiver]:
        return super()._all_receivers() | {
            FrameType.PING: self._on_ping,
            FrameType.COMMAND: lambda frame: CommandReceived(decode_message(Command, frame.payload)),
            FrameType.NOTICE: lambda frame: NoticeReceived(decode_message(Notice, frame.payload)),
            FrameType.OPEN: self._on_open,
        }

    def _on_ping(self, frame: Frame) -> None:
        self._check_generation(frame)
        self._outbox.add_control(encode(FrameType.PONG, payload=frame.payload))

    def _on_open(self, frame: Frame) -> StreamOpened | None:
        self._table.begin(frame.stream)
        request = decode_message(Open, frame.payload)
        if not 0 <= request.window <= MAX_OUTSTANDING_CREDIT:
            raise ProtocolViolation(f"a window of {request.window} bytes")
        if self.draining or len(self.streams) >= self.max_streams:
            self._table.bury(frame.stream, self._now)
            self._send_reset(frame.stream, ResetCode.REFUSED, "draining" if self.draining else "full")
            return None
        stream = StreamState(
            frame.stream,
            request,
            sending=Half.HEAD,
            window=ReceiveWindow(self._budget.begin_at(INITIAL_WINDOW), REQUEST_WINDOW_LIMIT, self._budget),
            credit=SendCredit(request.window),
        )
        self._table.add(stream)
        return StreamOpened(stream)
