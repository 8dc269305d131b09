"""The scheduler under random histories: a fake outside world answers its effects late, wrongly or never."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime import events as ev
from runtime.errors import NodeStopping, Warming
from runtime.events import Need
from runtime.placement import Capacity, Offer
from runtime.progress import LoadProgress
from runtime.scheduler import Scheduler
from tests.unit.runtime.scheduler.building import LIMITS

MODELS = {"small": 30, "middle": 50, "large": 90, "giant": 500}


class SchedulerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.scheduler = Scheduler(LIMITS)
        self.now = 0.0
        self.budget = 100
        self.number = 0
        self.waiting: dict[str, str] = {}
        self.deadlines: dict[str, float] = {}
        self.leased: dict[str, str] = {}
        self.preparing: dict[str, str] = {}
        self.starting: dict[str, str] = {}
        self.up: set[str] = set()
        self.to_stop: set[str] = set()
        self.held: set[str] = set()

    def send(self, event: ev.Event) -> None:
        for effect in self.scheduler.handle(event, self.now):
            self.apply(effect)

    def apply(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Grant(waiter_id, replica_id):
                model = self.waiting.pop(waiter_id)
                self.deadlines.pop(waiter_id)
                if replica_id is not None and waiter_id.startswith("slot"):
                    assert replica_id in self.up, "granted a replica that is not up"
                    assert replica_id.startswith(model)
                    self.leased[waiter_id] = replica_id
            case ev.Refuse(waiter_id, fault):
                self.waiting.pop(waiter_id)
                deadline = self.deadlines.pop(waiter_id)
                if isinstance(fault, Warming):
                    assert deadline <= self.now, "told to come back before its time was up"
            case ev.Announce(waiter_ids, _):
                assert set(waiter_ids) <= set(self.waiting)
            case _:
                self.begin(effect)

    def begin(self, effect: ev.Effect) -> None:
        match effect:
            case ev.Prepare(load_id, model_id):
                assert model_id not in self.preparing.values(), "two loads of one model"
                assert model_id not in [r.split("#")[0] for r in self.starting], "two loads of one model"
                self.preparing[load_id] = model_id
            case ev.CancelPrepare(load_id):
                del self.preparing[load_id]
            case ev.Start(replica_id, model_id, _, _):
                assert self.scheduler.ledger.reserved("cpu") + self.held_bytes() <= self.budget, (
                    "overcommitted"
                )
                assert model_id not in self.starting.values(), "two loads of one model"
                self.starting[replica_id] = model_id
            case ev.Stop(replica_id):
                assert replica_id not in self.to_stop
                assert replica_id not in self.leased.values() or replica_id in self.doomed
                self.starting.pop(replica_id, None)
                self.up.discard(replica_id)
                self.to_stop.add(replica_id)

    doomed: frozenset[str] | set[str] = frozenset()

    def held_bytes(self) -> int:
        return sum(held.memory for held in self.scheduler.ledger.held.values())

    @initialize()
    def devices(self) -> None:
        self.send(ev.DevicesChanged((Capacity("cpu", "cpu", self.budget),)))

    @rule(model=st.sampled_from(sorted(MODELS)), need=st.sampled_from(Need), budget=st.floats(0, 50))
    def want(self, model: str, need: Need, budget: float) -> None:
        self.number += 1
        waiter_id = f"{need}-{self.number}"
        self.waiting[waiter_id] = model
        self.deadlines[waiter_id] = self.now + budget
        self.send(ev.Wanted(waiter_id, model, self.now + budget, need))

    @rule(model=st.sampled_from(["small", "middle", "large"]), requests=st.integers(1, 4))
    def serve(self, model: str, requests: int) -> None:
        """The usual course, in one step, so that histories get far: wanted, prepared, started, answered."""
        for _ in range(requests):
            self.want(model=model, need=Need.SLOT, budget=40.0)
        for load_id in [load_id for load_id, wanted in self.preparing.items() if wanted == model]:
            del self.preparing[load_id]
            self.send(ev.Prepared(load_id, (Offer("engine", "cpu", MODELS[model], 2),)))
        for replica_id in [replica_id for replica_id, wanted in self.starting.items() if wanted == model]:
            del self.starting[replica_id]
            self.up.add(replica_id)
            self.send(ev.Started(replica_id))

    @precondition(lambda self: self.waiting or self.leased)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        waiter_id = data.draw(st.sampled_from(sorted({**self.waiting, **self.leased})))
        self.waiting.pop(waiter_id, None)
        self.deadlines.pop(waiter_id, None)
        self.leased.pop(waiter_id, None)
        self.send(ev.Left(waiter_id, tokens=10, seconds=1.0))
        self.send(ev.Left(waiter_id))

    @precondition(lambda self: self.preparing)
    @rule(data=st.data(), ok=st.booleans())
    def prepared(self, data: st.DataObject, ok: bool) -> None:
        load_id = data.draw(st.sampled_from(sorted(self.preparing)))
        model = self.preparing.pop(load_id)
        if ok:
            self.send(ev.Progressed(load_id, LoadProgress("downloading", 1, 2)))
            self.send(ev.Prepared(load_id, (Offer("engine", "cpu", MODELS[model], 2),)))
        else:
            self.send(ev.PrepareFailed(load_id, "no network"))

    @precondition(lambda self: self.starting)
    @rule(data=st.data(), ok=st.booleans())
    def started(self, data: st.DataObject, ok: bool) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.pop(replica_id)
        if ok:
            self.up.add(replica_id)
            self.send(ev.Started(replica_id))
        else:
            self.send(ev.Failed(replica_id, "no start"))

    @precondition(lambda self: self.up)
    @rule(data=st.data())
    def died(self, data: st.DataObject) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.up)))
        self.doomed = {*self.doomed, replica_id}
        self.send(ev.Failed(replica_id, "killed"))

    @precondition(lambda self: self.up or self.starting)
    @rule(data=st.data(), memory=st.integers(0, 120))
    def measured(self, data: st.DataObject, memory: int) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.up | set(self.starting))))
        self.send(ev.Measured(replica_id, memory))

    @precondition(lambda self: self.to_stop)
    @rule(data=st.data(), held=st.sampled_from([0, 0, 0, 7]))
    def gone(self, data: st.DataObject, held: int) -> None:
        replica_id = data.draw(st.sampled_from(sorted(self.to_stop)))
        self.to_stop.discard(replica_id)
        self.send(ev.Gone(replica_id, held, "still mapped"))
        if held:
            self.held.add(replica_id)

    @precondition(lambda self: self.held)
    @rule()
    def released(self) -> None:
        self.send(ev.Released(self.held.pop()))

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.send(ev.Tick())
        assert all(deadline > self.now for deadline in self.deadlines.values()), "somebody was forgotten"
        due = self.scheduler.next_deadline()
        assert due is None or due > self.now, "a tick left something undone"

    @rule(budget=st.integers(20, 150))
    def budget_changes(self, budget: int) -> None:
        self.budget = budget
        self.send(ev.DevicesChanged((Capacity("cpu", "cpu", budget),)))

    @rule(model=st.sampled_from(sorted(MODELS)))
    def unload(self, model: str) -> None:
        self.send(ev.UnloadAsked(model))

    @rule()
    def stale_news_is_ignored(self) -> None:
        for event in (
            ev.Started("x#0"),
            ev.Failed("x#0", ""),
            ev.Gone("x#0"),
            ev.Measured("x#0", 1),
            ev.Prepared("load-0", ()),
        ):
            assert self.scheduler.handle(event, self.now) == []

    @invariant()
    def everybody_waits_for_something(self) -> None:
        """A waiter has a load in flight, a full replica, or a load that waits for memory."""
        for model_id in set(self.waiting.values()):
            model = self.scheduler.models[model_id]
            assert model.load is not None or set(model.serving) & self.up

    @invariant()
    def a_load_that_waits_for_memory_waits_for_somebody(self) -> None:
        placing = [m for m in self.scheduler.models.values() if m.load and m.load.stage == "placing"]
        busy = set(self.leased.values()) | set(self.starting) | self.to_stop
        assert not placing or busy or self.scheduler.next_deadline(), "nothing will ever make room"

    @invariant()
    def slots_are_respected(self) -> None:
        for replica in self.scheduler.replicas.values():
            assert len(replica.running) <= replica.slots
            assert {w for w, r in self.leased.items() if r == replica.id} == replica.running

    def teardown(self) -> None:
        """Whatever happened: a shutdown answers everybody and ends everything."""
        self.send(ev.StopAsked())
        assert not self.waiting
        self.number += 1
        self.waiting["slot-last"] = "small"
        self.deadlines["slot-last"] = self.now + 1
        effects = self.scheduler.handle(ev.Wanted("slot-last", "small", self.now + 1), self.now)
        assert len(effects) == 1
        assert isinstance(effects[0], ev.Refuse)
        assert isinstance(effects[0].fault, NodeStopping)
        self.doomed = set(self.leased.values())
        self.send(ev.StopAsked(cut=True))
        for replica_id in sorted(self.to_stop):
            self.send(ev.Gone(replica_id))
        assert not self.scheduler.replicas


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
