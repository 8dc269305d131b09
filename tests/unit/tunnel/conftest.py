"""Plain makers for protocol tests, handed out as fixtures; and a connection that can be cut at any byte."""

from collections import Counter
from collections.abc import Callable

import pytest
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, Side

from tunnel.errors import ProtocolViolation
from tunnel.events import DataReceived, ResetReceived, StreamOpened, TunnelEvent
from tunnel.frames import MAX_MESSAGE_BYTES, SEND_MESSAGE_BYTES
from tunnel.liveness import DEFAULT_TIMES
from tunnel.messages import Open
from tunnel.protocol import TunnelProtocol
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.state import StreamState
from tunnel.table import TOMBSTONE_S

CAPACITY = 100_000  # bytes that the kernels and the line take before a write stalls


def make_open(uid: str = "req_a", window: int = 256 * 1024, **changes: object) -> Open:
    fields = {
        "uid": uid,
        "generation": 7,
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": (("content-type", "application/json"),),
        "deadline": 2_000_000_000.0,
        "ticket": "ticket",
        "window": window,
    }
    return Open(**{**fields, **changes})


class Pair:
    """A Hub's and a node's protocol with nothing in between but `move`."""

    def __init__(self, **options: object) -> None:
        self.now = 100.0
        self.hub = HubProtocol(generation=7, now=self.now, jitter=lambda: 0.5, **options)
        self.node = NodeProtocol(generation=7, now=self.now, jitter=lambda: 0.5, **options)

    def to_node(self) -> list:
        return self._move(self.hub, self.node)

    def to_hub(self) -> list:
        return self._move(self.node, self.hub)

    def _move(self, sender: TunnelProtocol, receiver: TunnelProtocol) -> list:
        events = []
        while message := sender.data_to_send(self.now):
            assert len(message) <= 64 * 1024
            events += receiver.receive(message, self.now)
        return events

    def opened(self, **changes: object) -> tuple:
        """Open a stream and give both sides' state of it."""
        here = self.hub.open_stream(make_open(**changes))
        *_, event = self.to_node()
        return here, event.stream


class Line:
    """One direction of a connection: bytes on their way, in order."""

    def __init__(self) -> None:
        self.flight = bytearray()
        self.frozen = False
        self.cut = False  # takes nothing more; what is in flight may arrive, and then the end
        self.mute = False  # and not even the end is told

    def take(self, data: bytes) -> None:
        if not self.cut:
            self.flight += data

    def sever(self, keep: float = 1.0, *, mute: bool = False) -> None:
        """Cut it at any byte."""
        del self.flight[int(len(self.flight) * keep) :]
        self.cut = True
        self.mute = self.mute or mute


class Held:
    """What one side's user knows of a stream."""

    def __init__(self, state: StreamState) -> None:
        self.state = state
        self.sent = self.got = b""
        self.unread = 0
        self.fin_sent = self.fin_got = False
        self.outcome: str | None = None

    def settle(self, outcome: str) -> None:
        assert self.outcome is None, f"{self.outcome}, and then {outcome}"
        self.outcome = outcome


class End:
    """One side of one connection: its protocol, its websocket, its timer, and its users."""

    def __init__(
        self, protocol: TunnelProtocol, side: Side, incoming: Line, outgoing: Line, now: float
    ) -> None:
        self.protocol = protocol
        self.wire = Protocol(side, max_size=MAX_MESSAGE_BYTES)
        self.incoming = incoming
        self.outgoing = outgoing
        self.timer = protocol.next_deadline()
        self.heard = now
        self.held: dict[int, Held] = {}
        self.executed: Counter[str] = Counter()  # requests that began here, by uid
        self.buried: list[float] = []  # when this end reset or refused a stream
        self.over: str | None = None

    def live(self) -> list[Held]:
        return [held for held in self.held.values() if held.outcome is None]

    def hold(self, stream: StreamState) -> None:
        self.held[stream.id] = Held(stream)

    # -- bytes ----------------------------------------------------------------------------------

    def flush(self, now: float) -> None:
        """Write until the line takes no more, as the session's writer does."""
        liveness = self.protocol.liveness
        if len(self.outgoing.flight) <= CAPACITY:
            liveness.writing_since = None
        while self.over is None and liveness.writing_since is None and self.protocol.wants_to_send:
            message = self.protocol.data_to_send(now)
            assert 0 < len(message) <= SEND_MESSAGE_BYTES
            self.protocol.take_unblocked()
            self.wire.send_binary(message)
            self._put_on_the_line()
            if len(self.outgoing.flight) > CAPACITY:
                liveness.writing_since = now
        self._settle_what_is_done()

    def deliver(self, count: int, now: float) -> None:
        """Let bytes arrive: the protocol gets the messages that are whole now."""
        line = self.incoming
        if line.frozen or self.over is not None:
            return
        chunk = bytes(line.flight[:count])
        del line.flight[: len(chunk)]
        if chunk:
            self.wire.receive_data(chunk)
        for frame in self.wire.events_received():
            if frame.opcode is Opcode.CLOSE:
                self.finish("closed by the peer")
            elif self.over is None:
                self.heard = now
                self._receive(bytes(frame.data), now)
        if line.cut and not line.mute and not line.flight and self.over is None:
            self.finish("connection lost")

    def _receive(self, message: bytes, now: float) -> None:
        last = self.protocol.last_stream
        try:
            events = self.protocol.receive(message, now)
        except ProtocolViolation as violation:
            # Honest peers break no rule but one: what was sent before a RESET was heard of may be very late.
            assert min(self.buried, default=now) <= now - TOMBSTONE_S
            for event in violation.before:
                self._note(event)
            self.finish("late beyond measure")
            return
        for event in events:
            self._note(event)
        opened = sum(isinstance(event, StreamOpened) for event in events)
        self.buried += [now] * (self.protocol.last_stream - last - opened)
        self._settle_what_is_done()

    def _note(self, event: TunnelEvent) -> None:
        match event:
            case StreamOpened(stream):
                self.executed[stream.open.uid] += 1
                self.hold(stream)
            case DataReceived(stream, data, fin):
                held = self.held[stream.id]
                assert held.outcome is None
                assert not held.fin_got
                held.got += data
                held.unread += len(data)
                held.fin_got = fin
            case ResetReceived(stream, _, _):
                self.held[stream.id].settle("reset by the peer")

    def _put_on_the_line(self) -> None:
        self.outgoing.take(b"".join(self.wire.data_to_send()))

    def _settle_what_is_done(self) -> None:
        for held in self.live():
            assert held.state.over == (held.state.id not in self.protocol.streams)
            if held.state.over:
                held.settle("done")

    # -- time -----------------------------------------------------------------------------------

    def tick(self, now: float) -> None:
        reason = self.protocol.tick(now)
        if reason is None:
            self.timer = self.protocol.next_deadline()
            assert self.timer > now
            return
        since = self.heard if reason == "silent" else self.protocol.liveness.writing_since
        least = DEFAULT_TIMES.silence_s if reason == "silent" else DEFAULT_TIMES.stall_s
        assert now - since >= least - 1e-6
        self.finish(reason)

    # -- the end ----------------------------------------------------------------------------------

    def finish(self, reason: str) -> None:
        """End everything, as a session does when it is torn down; its users drop what they had not read."""
        self.over = reason
        self._settle_what_is_done()
        for held in self.live():
            held.settle("lost")
        self.protocol.abandon()
        assert not self.protocol.streams
        for held in self.held.values():
            self.protocol.consumed(held.state, held.unread)
            held.unread = 0
        if reason == "superseded":
            self.wire.send_close(4409, reason)
            self._put_on_the_line()
        self.outgoing.sever()
        self.incoming.sever(0.0)


def connect(hub: TunnelProtocol, node: TunnelProtocol, now: float) -> tuple[End, End]:
    down, up = Line(), Line()
    return End(hub, SERVER, up, down, now), End(node, CLIENT, down, up, now)


@pytest.fixture
def pair() -> Pair:
    return Pair()


@pytest.fixture
def new_pair() -> Callable[..., Pair]:
    return Pair


@pytest.fixture
def request_open() -> Callable[..., Open]:
    return make_open


@pytest.fixture
def connect_ends() -> Callable[[TunnelProtocol, TunnelProtocol, float], tuple[End, End]]:
    return connect
