"""Both peers through an in-memory pipe that delivers when it likes, against a model of the streams."""

from collections import defaultdict, deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunnel.errors import ResetCode, TooManyStreams
from tunnel.events import DataReceived, HeadReceived, ResetReceived, StreamOpened
from tunnel.flow import INITIAL_WINDOW, LEAST_WINDOW, ByteBudget
from tunnel.messages import Head, Open, Trailers
from tunnel.protocol import MAX_PENDING_BYTES, TunnelProtocol
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.state import Half, StreamState

OPEN = Open(
    uid="r", generation=1, method="POST", path="/", headers=(), deadline=1.0, ticket="t", window=50_000
)
CHOICE = st.randoms(use_true_random=False)


class Peer:
    """One protocol, what it holds of each stream, and what is on its way to it."""

    def __init__(self, protocol: TunnelProtocol, budget: ByteBudget) -> None:
        self.protocol = protocol
        self.budget = budget
        self.pipe: deque[bytes] = deque()
        self.streams: dict[int, StreamState] = {}
        self.unread: dict[int, int] = {}
        self.sent: defaultdict[int, bytes] = defaultdict(bytes)
        self.got: dict[int, bytes] = {}
        self.ended: set[int] = set()  # FIN seen
        self.finished: set[int] = set()  # FIN sent
        self.reset: set[int] = set()

    def hold(self, stream: StreamState) -> None:
        self.streams[stream.id] = stream
        self.unread[stream.id] = 0
        self.got[stream.id] = b""

    def live(self) -> list[StreamState]:
        return [stream for stream in self.streams.values() if stream.id in self.protocol.streams]


class Tunnel(RuleBasedStateMachine):
    """Everything either side may do, in any order."""

    def __init__(self) -> None:
        super().__init__()
        options = {"generation": 1, "now": 0.0, "max_streams": 4, "jitter": lambda: 0.5}
        # The Hub's holds two windows of the wished size, the node's one grown and three not.
        here, there = ByteBudget(2 * OPEN.window), ByteBudget(4 * INITIAL_WINDOW + INITIAL_WINDOW)
        self.hub = Peer(HubProtocol(budget=here, **options), here)
        self.node = Peer(NodeProtocol(budget=there, **options), there)
        self.now = 0.0

    @rule()
    def open_stream(self) -> None:
        try:
            self.hub.hold(self.hub.protocol.open_stream(OPEN))
        except TooManyStreams:
            assert len(self.hub.protocol.streams) == 4

    @rule(pick=CHOICE)
    def answer(self, pick) -> None:
        waiting = [stream for stream in self.node.live() if stream.sending is Half.HEAD]
        if waiting:
            self.node.protocol.send_head(pick.choice(waiting), Head(status=200, headers=()))

    @rule(
        from_hub=st.booleans(),
        size=st.integers(0, 40_000),
        fin=st.booleans(),
        trailers=st.booleans(),
        pick=CHOICE,
    )
    def send(self, from_hub: bool, size: int, fin: bool, trailers: bool, pick) -> None:
        peer = self.hub if from_hub else self.node
        able = [s for s in peer.live() if s.sending is Half.BODY and not s.fin_pending]
        if not able:
            return
        stream = pick.choice(able)
        data = bytes([pick.randrange(256)]) * min(size, max(0, peer.protocol.room(stream)))
        riding = Trailers(outcome="stop") if trailers and fin else None
        peer.protocol.send_data(stream, data, fin=fin, trailers=riding)
        peer.sent[stream.id] += data
        if fin:
            peer.finished.add(stream.id)

    @rule(from_hub=st.booleans(), pick=CHOICE)
    def consume(self, from_hub: bool, pick) -> None:
        peer = self.hub if from_hub else self.node
        if peer.streams:
            stream = pick.choice(list(peer.streams.values()))
            count, peer.unread[stream.id] = peer.unread[stream.id], 0
            peer.protocol.consumed(stream, count)

    @rule(from_hub=st.booleans(), pick=CHOICE)
    @precondition(lambda self: self.now < 1e6)
    def reset(self, from_hub: bool, pick) -> None:
        peer = self.hub if from_hub else self.node
        if peer.live() and pick.random() < 0.3:
            stream = pick.choice(peer.live())
            assert peer.protocol.reset(stream, ResetCode.CANCELLED)
            peer.reset.add(stream.id)

    @rule(to_hub=st.booleans(), count=st.integers(1, 5))
    def pack(self, to_hub: bool, count: int) -> None:
        sender, receiver = (self.node, self.hub) if to_hub else (self.hub, self.node)
        for _ in range(count):
            message = sender.protocol.data_to_send(self.now)
            if message:
                receiver.pipe.append(message)

    @rule(to_hub=st.booleans(), count=st.integers(1, 5))
    def deliver(self, to_hub: bool, count: int) -> None:
        receiver = self.hub if to_hub else self.node
        for _ in range(min(count, len(receiver.pipe))):
            for event in receiver.protocol.receive(receiver.pipe.popleft(), self.now):
                self.note(receiver, event)

    @rule(seconds=st.floats(0, 3))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for peer in (self.hub, self.node):
            peer.protocol.liveness.heard = self.now
            assert peer.protocol.tick(self.now) is None

    def note(self, peer: Peer, event: object) -> None:
        match event:
            case StreamOpened(stream):
                peer.hold(stream)
            case DataReceived(stream, data, fin):
                assert stream.id not in peer.ended
                peer.got[stream.id] += data
                peer.unread[stream.id] += len(data)
                if fin:
                    peer.ended.add(stream.id)
            case ResetReceived(stream, _, _):
                peer.reset.add(stream.id)
            case HeadReceived():
                assert peer is self.hub

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for sender, receiver in ((self.hub, self.node), (self.node, self.hub)):
            for stream_id, got in receiver.got.items():
                assert sender.sent[stream_id].startswith(got)
                if stream_id in receiver.ended:
                    assert got == sender.sent[stream_id]
                    assert stream_id in sender.finished

    @invariant()
    def memory_is_bounded(self) -> None:
        for peer in (self.hub, self.node):
            for stream in peer.streams.values():
                assert stream.pending_bytes <= MAX_PENDING_BYTES
                assert stream.window.received - stream.window.consumed <= max(1024 * 1024, OPEN.window)
            assert len(peer.protocol.streams) <= 4

    @invariant()
    def the_budget_counts_what_may_have_to_be_held(self) -> None:
        for peer in (self.hub, self.node):
            assert peer.budget.reserved == sum(stream.window.size for stream in peer.streams.values())
            for stream in peer.streams.values():
                assert stream.window.received - stream.window.consumed <= stream.window.size
        narrow = sum(stream.open.window == LEAST_WINDOW for stream in self.hub.streams.values())
        assert self.hub.budget.reserved <= self.hub.budget.limit + narrow * LEAST_WINDOW

    def teardown(self) -> None:
        """Let everything arrive: both sides then agree on which streams live."""
        while self.hub.protocol.wants_to_send or self.node.protocol.wants_to_send:
            for to_hub in (False, True):
                self.pack(to_hub, 1)
                self.deliver(to_hub, 100)
        for to_hub in (False, True):
            self.deliver(to_hub, 10_000)
        if self.hub.protocol.wants_to_send or self.node.protocol.wants_to_send:
            self.teardown()
            return
        assert set(self.hub.protocol.streams) == set(self.node.protocol.streams)
        self.what_arrived_is_what_was_sent()
        for sender, receiver in ((self.hub, self.node), (self.node, self.hub)):
            for stream_id in sender.finished - sender.reset - receiver.reset:
                assert stream_id in receiver.ended
        for peer in (self.hub, self.node):
            self.give_everything_back(peer)

    def give_everything_back(self, peer: Peer) -> None:
        for stream in peer.streams.values():
            peer.protocol.consumed(stream, peer.unread[stream.id])
            assert stream.id in peer.protocol.streams or stream.window.size == 0
        peer.protocol.abandon()
        assert peer.budget.reserved == 0


TestTunnel = Tunnel.TestCase
TestTunnel.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
