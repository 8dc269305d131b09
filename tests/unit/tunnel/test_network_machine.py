"""Both peers over a network that delays, freezes and cuts, on a clock that jumps, against a model of it all.

What lies between them are real websockets (their sans-I/O part), byte by byte: a connection may be cut
inside a message, and then nothing of that message arrives. Several sessions of one node may be under way at
once, each with bytes of its own still on their way. `test_state_machine.py` tries one session without faults,
and more of what may happen inside it.
"""

from collections import Counter
from random import Random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tunnel.errors import ResetCode, TooManyStreams
from tunnel.flow import INITIAL_WINDOW, ByteBudget
from tunnel.liveness import DEFAULT_TIMES
from tunnel.messages import Goaway, Head, Open
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.state import Half

MAX_STREAMS = 3
MAX_SESSIONS = 3  # at once, on either side
EPSILON = 1e-6
SIZES = (0, 1, 13, 200, 3_000, 16_384, 50_000, 100_000)
SEED = st.integers(0, 2**32 - 1)
SIDE = st.sampled_from([0, 1])  # the Hub's and the node's
OK = Head(status=200, headers=())
LEAVING = Goaway(reason="replaced", reconnect_in=0.0, deadline=600.0, last_stream=0)


class Network(RuleBasedStateMachine):
    """One node, one Hub, and everything that can happen between them."""

    def __init__(self, connect) -> None:
        super().__init__()
        self.connect = connect
        self.now = 1000.0
        self.generation = 0
        self.opened = 0
        self.sessions: list[tuple] = []  # the Hub's end and the node's
        self.budgets = (ByteBudget(2 * INITIAL_WINDOW), ByteBudget(5 * INITIAL_WINDOW))
        self.stalled_until = [0.0, 0.0]
        self.dial(supersede=False)

    def standing(self, side: int) -> list:
        return [session[side] for session in self.sessions if session[side].over is None]

    def stalled(self, side: int) -> bool:
        return self.now < self.stalled_until[side]

    def awake(self, side: int) -> list:
        return [] if self.stalled(side) else self.standing(side)

    # -- sessions -----------------------------------------------------------------------------------

    @rule(supersede=st.booleans())
    def dial(self, supersede: bool) -> None:
        """The node comes back: the newest generation wins, at once or when the node has left the old one."""
        if self.stalled(0) or self.stalled(1):
            return
        if max(len(self.standing(0)), len(self.standing(1))) >= MAX_SESSIONS:
            return
        for old in self.standing(0) if supersede else ():
            old.finish("superseded")
        for old in self.standing(1):
            if not old.protocol.draining:
                old.protocol.send_goaway(LEAVING)
        self.generation += 1
        options = {"generation": self.generation, "now": self.now, "max_streams": MAX_STREAMS}
        hub = HubProtocol(budget=self.budgets[0], jitter=lambda: 0.5, **options)
        node = NodeProtocol(budget=self.budgets[1], jitter=lambda: 0.5, **options)
        self.sessions.append(self.connect(hub, node, self.now))

    @rule(keep_down=st.floats(0, 1), keep_up=st.floats(0, 1), mute=st.booleans(), seed=SEED)
    def cut(self, keep_down: float, keep_up: float, mute: bool, seed: int) -> None:
        hub, node = Random(seed).choice(self.sessions)
        node.incoming.sever(keep_down, mute=mute)
        hub.incoming.sever(keep_up, mute=mute)

    @rule(side=SIDE, seed=SEED)
    def freeze(self, side: int, seed: int) -> None:
        Random(seed).choice(self.sessions)[side].incoming.frozen = True

    @rule()
    def thaw(self) -> None:
        for session in self.sessions:
            for end in session:
                end.incoming.frozen = False

    @rule(side=SIDE, seconds=st.floats(1, 45))
    def stall(self, side: int, seconds: float) -> None:
        """A loop that does something else: nothing of this side happens, timers included."""
        if not self.stalled(side):
            self.stalled_until[side] = self.now + seconds

    # -- streams ------------------------------------------------------------------------------------

    @rule(seed=SEED, count=st.integers(1, 60))
    def traffic(self, seed: int, count: int) -> None:
        """Streams begin, talk and end, and some of their bytes arrive."""
        pick = Random(seed)
        if not self.standing(0) or not self.standing(1):
            self.dial(supersede=pick.random() < 0.5)
        steps = [self.open_stream, self.send, self.send, self.send, self.consume, self.reset, self.deliver]
        for step in pick.choices(steps, k=count):
            step(pick, pick.randrange(2))

    def open_stream(self, pick: Random, _: int) -> None:
        ends = self.awake(0)
        if not ends:
            return
        end = ends[-1] if pick.random() < 0.8 else pick.choice(ends)
        self.opened += 1
        try:
            end.hold(end.protocol.open_stream(self.request()))
        except TooManyStreams:
            assert len(end.live()) == MAX_STREAMS

    def request(self) -> Open:
        path = {"method": "POST", "path": "/", "headers": (), "deadline": 1e9, "ticket": "t"}
        return Open(uid=f"r{self.opened}", generation=self.generation, window=50_000, **path)

    def send(self, pick: Random, side: int) -> None:
        live = [(end, held) for end in self.awake(side) for held in end.live() if not held.fin_sent]
        if not live:
            return
        end, held = pick.choice(live)
        if held.state.sending is Half.HEAD:
            end.protocol.send_head(held.state, OK)
        room = max(0, end.protocol.room(held.state))
        data = pick.randbytes(min(pick.choice(SIZES), room))
        held.fin_sent = pick.random() < 0.2
        end.protocol.send_data(held.state, data, fin=held.fin_sent)
        held.sent += data

    def consume(self, pick: Random, side: int) -> None:
        for end in self.awake(side):
            for held in end.held.values():
                if pick.random() < 0.7:
                    end.protocol.consumed(held.state, held.unread)
                    held.unread = 0

    def reset(self, pick: Random, side: int) -> None:
        live = [(end, held) for end in self.awake(side) for held in end.live()]
        if live and pick.random() < 0.2:
            end, held = pick.choice(live)
            assert end.protocol.reset(held.state, ResetCode.CANCELLED)
            held.settle("reset here")
            end.buried.append(self.now)

    # -- bytes and time -----------------------------------------------------------------------------

    def deliver(self, pick: Random, side: int) -> None:
        """Some bytes of one connection arrive, perhaps a part of a message."""
        self.write()
        if ends := self.awake(side):
            pick.choice(ends).deliver(pick.choice(SIZES), self.now)

    def write(self) -> None:
        for side in (0, 1):
            for end in self.awake(side):
                end.flush(self.now)

    @rule(seconds=st.floats(0, 15) | st.floats(0, 50))
    def wait(self, seconds: float) -> None:
        """Time passes and nothing arrives."""
        self.pass_time(seconds, flowing=False)

    @rule(seconds=st.just(0) | st.floats(0, 5) | st.floats(0, 120))
    def calm(self, seconds: float) -> None:
        """Time passes and everything arrives that can: whoever is well stays connected."""
        self.settle_down()
        well = [session for session in self.sessions if self.is_well(session)]
        self.pass_time(seconds, flowing=True)
        for session in well:
            assert self.is_well(session), (session[0].over, session[1].over)

    def is_well(self, session: tuple) -> bool:
        return not any(
            end.over or end.incoming.frozen or end.incoming.cut or self.stalled(side)
            for side, end in enumerate(session)
        )

    def pass_time(self, seconds: float, *, flowing: bool) -> None:
        """Let every timer ring when it is due, on the side whose loop runs."""
        until = self.now + seconds
        while (due := self.next_moment()) <= until:
            self.now = max(self.now, due)
            for side in (0, 1):
                for end in self.awake(side):
                    if end.timer <= self.now:
                        end.tick(self.now)
            self.settle_down() if flowing else self.write()
        self.now = until

    def next_moment(self) -> float:
        wakings = [moment for moment in self.stalled_until if moment > self.now]
        timers = [end.timer for side in (0, 1) for end in self.awake(side)]
        return min(wakings + timers, default=float("inf"))

    def settle_down(self) -> None:
        """Deliver until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            self.write()
            for side in (0, 1):
                for end in self.awake(side):
                    line = end.incoming
                    moved = moved or bool(line.flight and not line.frozen)
                    end.deliver(len(line.flight), self.now)

    # -- what must hold -----------------------------------------------------------------------------

    @invariant()
    def what_arrived_is_what_was_sent(self) -> None:
        for session in self.sessions:
            for sender, receiver in (session, session[::-1]):
                for stream_id, there in receiver.held.items():
                    here = sender.held.get(stream_id)
                    if here is None:
                        assert not there.got
                        continue
                    assert here.sent.startswith(there.got)
                    if there.fin_got:
                        assert here.fin_sent
                        assert here.sent == there.got

    @invariant()
    def nothing_runs_twice(self) -> None:
        executed = sum((node.executed for _, node in self.sessions), Counter())
        assert all(count == 1 for count in executed.values())

    @invariant()
    def the_dead_are_found_in_time(self) -> None:
        for side in (0, 1):
            for end in self.awake(side):
                assert self.now - end.heard < DEFAULT_TIMES.silence_s + EPSILON
                since = end.protocol.liveness.writing_since
                assert since is None or self.now - since < DEFAULT_TIMES.stall_s + EPSILON

    @invariant()
    def streams_end_one_way_and_with_their_session(self) -> None:
        for session in self.sessions:
            for end, peer in (session, session[::-1]):
                assert {held.state.id for held in end.live()} == set(end.protocol.streams)
                for stream_id, held in end.held.items():
                    if held.outcome == "reset by the peer" and stream_id in peer.held:
                        assert peer.held[stream_id].outcome == "reset here"

    @invariant()
    def memory_is_what_the_budget_says(self) -> None:
        for side, budget in enumerate(self.budgets):
            windows = [held.state.window for session in self.sessions for held in session[side].held.values()]
            assert budget.reserved == sum(window.size for window in windows)

    def teardown(self) -> None:
        """In the end both sides agree on what lives; and when the network dies, nothing is left."""
        self.pass_time(50, flowing=True)
        self.settle_down()
        for session in self.sessions:
            if self.is_well(session):
                assert set(session[0].protocol.streams) == set(session[1].protocol.streams)
        for hub, node in self.sessions:
            hub.incoming.sever(mute=True)
            node.incoming.sever(mute=True)
        self.pass_time(DEFAULT_TIMES.silence_s, flowing=True)
        assert not self.standing(0)
        assert not self.standing(1)
        assert all(held.outcome for session in self.sessions for end in session for held in end.held.values())
        assert [budget.reserved for budget in self.budgets] == [0, 0]


def test_nothing_is_lost_run_twice_or_left_behind(connect_ends) -> None:
    run_state_machine_as_test(
        lambda: Network(connect_ends),
        settings=settings(
            max_examples=200,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
        ),
    )
