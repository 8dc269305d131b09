"""The scheduler under random histories: a fake outside world answers its effects late, wrongly or never."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runtime import events as ev
from runtime.errors import LoadFailed, NodeStopping, Overloaded, Warming
from runtime.events import Need
from runtime.placement import Capacity, Offer
from runtime.progress import LoadProgress
from runtime.replica import ReplicaState
from runtime.scheduler import Scheduler, SchedulerLimits

MODELS = {"small": 30, "middle": 50, "large": 90, "giant": 500}
LIMITS = SchedulerLimits(idle_ttl_s=60.0, linger_s=30.0, waiting_per_model=4)


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


def test_the_line_is_capped() -> None:
    scheduler = Scheduler(LIMITS)
    for number in range(4):
        scheduler.handle(ev.Wanted(f"w{number}", "m", 10.0), 0.0)
    (refusal,) = scheduler.handle(ev.Wanted("w4", "m", 10.0), 0.0)
    assert isinstance(refusal, ev.Refuse)
    assert isinstance(refusal.fault, Overloaded)


def ready(scheduler: Scheduler, model: str, memory: int, now: float = 0.0) -> str:
    """Bring a model up through the scheduler's own events; returns the replica."""
    scheduler.handle(ev.Wanted(f"up-{model}", model, 1e9, Need.READY), now)
    load = scheduler.models[model].load
    assert load is not None
    effects = scheduler.handle(ev.Prepared(load.id, (Offer("engine", "cpu", memory, 2),)), now)
    start = next(effect for effect in effects if isinstance(effect, ev.Start))
    scheduler.handle(ev.Started(start.replica_id), now)
    return start.replica_id


def with_budget(budget: int) -> Scheduler:
    scheduler = Scheduler(LIMITS)
    scheduler.handle(ev.DevicesChanged((Capacity("cpu", "cpu", budget),)), 0.0)
    return scheduler


def test_slots_are_given_in_order_and_handed_on() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    granted = [scheduler.handle(ev.Wanted(f"w{n}", "m", 10.0), 1.0) for n in range(4)]
    assert granted == [[ev.Grant("w0", replica)], [ev.Grant("w1", replica)], [], []]
    assert scheduler.handle(ev.Left("w0"), 2.0) == [ev.Grant("w2", replica)]
    assert scheduler.handle(ev.Left("w3"), 2.0) == [], "one who left the line gets nothing"
    assert scheduler.handle(ev.Left("w1"), 2.0) == []


def test_an_idle_replica_is_unloaded_after_its_time() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    assert scheduler.next_deadline() == 60.0
    assert scheduler.handle(ev.Tick(), 59.9) == []
    assert scheduler.handle(ev.Tick(), 60.0) == [ev.Stop(replica)]


def test_the_last_waiter_takes_the_load_with_it() -> None:
    scheduler = with_budget(100)
    (prepare,) = scheduler.handle(ev.Wanted("w", "m", 10.0), 0.0)
    assert isinstance(prepare, ev.Prepare)
    assert scheduler.handle(ev.Left("w"), 1.0) == [ev.CancelPrepare(prepare.load_id)]


def test_a_load_whose_waiter_ran_out_of_time_goes_on_for_a_while() -> None:
    scheduler = with_budget(100)
    (prepare,) = scheduler.handle(ev.Wanted("w", "m", 10.0), 0.0)
    assert isinstance(prepare, ev.Prepare)
    scheduler.handle(ev.Progressed(prepare.load_id, LoadProgress("downloading", 5, 10)), 5.0)
    (refuse,) = scheduler.handle(ev.Tick(), 10.0)
    assert isinstance(refuse, ev.Refuse)
    assert isinstance(refuse.fault, Warming)
    assert refuse.fault.progress.fraction == 0.5
    assert scheduler.next_deadline() == 40.0
    assert scheduler.handle(ev.Tick(), 40.0) == [ev.CancelPrepare(prepare.load_id)]


def test_failed_loads_cool_down_longer_each_time() -> None:
    scheduler, now, waits = with_budget(100), 0.0, []
    for number in range(4):
        (prepare,) = scheduler.handle(ev.Wanted(f"w{number}", "m", now + 10), now)
        assert isinstance(prepare, ev.Prepare)
        (refuse,) = scheduler.handle(ev.PrepareFailed(prepare.load_id, "no network"), now)
        assert isinstance(refuse, ev.Refuse)
        (too_early,) = scheduler.handle(ev.Wanted("early", "m", now + 10), now)
        assert isinstance(too_early, ev.Refuse)
        wait = scheduler.models["m"].cool_until - now
        waits.append(wait)
        now += wait
    assert waits == [5.0, 10.0, 20.0, 40.0]


def test_the_first_crash_is_reloaded_at_once_a_crash_loop_is_not() -> None:
    scheduler = with_budget(100)
    first = ready(scheduler, "m", 10)
    assert scheduler.handle(ev.Failed(first, "killed"), 1.0) == [ev.Stop(first)]
    scheduler.handle(ev.Gone(first), 1.0)
    second = ready(scheduler, "m", 10, now=1.0)
    scheduler.handle(ev.Failed(second, "killed"), 2.0)
    (refuse,) = scheduler.handle(ev.Wanted("w", "m", 100.0), 2.0)
    assert isinstance(refuse, ev.Refuse)


def test_a_busy_replica_is_drained_before_it_is_unloaded() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    scheduler.handle(ev.Wanted("w", "m", 10.0), 0.0)
    assert scheduler.handle(ev.UnloadAsked("m"), 1.0) == []
    assert scheduler.replicas[replica].state is ReplicaState.DRAINING
    assert scheduler.handle(ev.Left("w"), 2.0) == [ev.Stop(replica)]


def test_a_replica_that_takes_more_than_was_reserved_has_that_counted() -> None:
    scheduler = with_budget(100)
    first = ready(scheduler, "m", 40)
    scheduler.handle(ev.Measured(first, 70), 1.0)
    scheduler.handle(ev.Measured(first, 30), 2.0)  # what it took once it may take again
    assert scheduler.ledger.reserved("cpu") == 70
    (prepare,) = scheduler.handle(ev.Wanted("w", "n", 10.0), 3.0)
    assert isinstance(prepare, ev.Prepare)
    effects = scheduler.handle(ev.Prepared(prepare.load_id, (Offer("engine", "cpu", 50, 2),)), 3.0)
    assert ev.Stop(first) in effects, "the other is idle and makes room"
    assert not [effect for effect in effects if isinstance(effect, ev.Start)]
    (start, *_) = scheduler.handle(ev.Gone(first), 4.0)
    assert isinstance(start, ev.Start | ev.Announce)
    assert scheduler.ledger.reserved("cpu") == 50


def test_memory_that_did_not_come_back_is_not_promised() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 80)
    scheduler.handle(ev.UnloadAsked("m"), 1.0)
    scheduler.handle(ev.Gone(replica, held=80, reason="pid 1 would not die"), 1.0)
    (prepare,) = scheduler.handle(ev.Wanted("w", "m", 10.0), 2.0)
    assert isinstance(prepare, ev.Prepare)
    offer = Offer("engine", "cpu", 80, 2)
    (refuse,) = scheduler.handle(ev.Prepared(prepare.load_id, (offer,)), 2.0)
    assert isinstance(refuse, ev.Refuse)
    scheduler.handle(ev.Released(replica), 3.0)
    (prepare,) = scheduler.handle(ev.Wanted("w2", "m", 10.0), 3.0)
    assert isinstance(prepare, ev.Prepare)
    assert any(isinstance(e, ev.Start) for e in scheduler.handle(ev.Prepared(prepare.load_id, (offer,)), 3.0))


def prepared(scheduler: Scheduler, model: str, memory: int, now: float) -> list[ev.Effect]:
    """Somebody wants the model, and it is found to take so much."""
    (prepare,) = scheduler.handle(ev.Wanted(f"for-{model}", model, 1e9), now)
    assert isinstance(prepare, ev.Prepare)
    return scheduler.handle(ev.Prepared(prepare.load_id, (Offer("engine", "cpu", memory, 1),)), now)


def starts(effects: list[ev.Effect]) -> list[str]:
    return [effect.model_id for effect in effects if isinstance(effect, ev.Start)]


def test_an_idle_replica_makes_room() -> None:
    scheduler = with_budget(100)
    idle = ready(scheduler, "idle", 60)
    assert prepared(scheduler, "new", 50, now=2.0) == [ev.Stop(idle)]
    assert starts(scheduler.handle(ev.Gone(idle), 3.0)) == ["new"]


def test_a_busy_replica_is_waited_for_and_goes_once_it_is_idle() -> None:
    scheduler = with_budget(100)
    busy = ready(scheduler, "busy", 60)
    scheduler.handle(ev.Wanted("w", "busy", 1e9), 1.0)
    assert prepared(scheduler, "new", 50, now=2.0) == []
    assert scheduler.handle(ev.Left("w"), 3.0) == [ev.Stop(busy)]
    assert starts(scheduler.handle(ev.Gone(busy), 4.0)) == ["new"]


def test_a_busy_model_keeps_its_place_for_a_turn_and_then_ends_what_it_answers() -> None:
    scheduler = with_budget(100)
    busy = ready(scheduler, "busy", 60)
    scheduler.handle(ev.Wanted("w", "busy", 1e9), 1.0)
    assert prepared(scheduler, "new", 50, now=2.0) == []
    assert scheduler.handle(ev.Wanted("x", "busy", 1e9), 3.0) == [ev.Grant("x", busy)]
    assert scheduler.next_deadline() == 30.0
    assert scheduler.handle(ev.Tick(), 30.0) == []
    assert scheduler.replicas[busy].state is ReplicaState.DRAINING
    (prepare,) = scheduler.handle(ev.Wanted("y", "busy", 1e9), 31.0)
    assert isinstance(prepare, ev.Prepare), "whoever comes now waits for the model's next turn"
    assert scheduler.handle(ev.Left("w"), 32.0) == []
    assert scheduler.handle(ev.Left("x"), 33.0) == [ev.Stop(busy)]
    assert starts(scheduler.handle(ev.Gone(busy), 34.0)) == ["new"]


def test_nobody_is_asked_to_go_for_a_load_that_nobody_waits_for() -> None:
    scheduler = with_budget(100)
    busy = ready(scheduler, "busy", 60)
    scheduler.handle(ev.Wanted("w", "busy", 1e9), 1.0)
    (prepare,) = scheduler.handle(ev.Wanted("n", "new", 5.0), 2.0)
    assert isinstance(prepare, ev.Prepare)
    scheduler.handle(ev.Prepared(prepare.load_id, (Offer("engine", "cpu", 50, 1),)), 3.0)
    (refuse,) = scheduler.handle(ev.Tick(), 5.0)
    assert isinstance(refuse, ev.Refuse)
    scheduler.handle(ev.Tick(), 30.0)
    assert scheduler.replicas[busy].state is ReplicaState.READY


def asked_for_four_times() -> tuple[Scheduler, str]:
    """A model that took two seconds to load, and answers four since 3.0."""
    scheduler = with_budget(100)
    scheduler.handle(ev.Wanted("w0", "paying", 1e9), 0.0)
    scheduler.handle(ev.Prepared("load-1", (Offer("engine", "cpu", 60, 4),)), 0.0)
    (paying,) = scheduler.replicas
    scheduler.handle(ev.Started(paying), 2.0)
    for number in range(1, 4):
        scheduler.handle(ev.Wanted(f"w{number}", "paying", 1e9), 3.0)
    return scheduler, paying


def test_a_model_that_is_asked_for_stays_for_its_turn_though_it_is_idle() -> None:
    scheduler, paying = asked_for_four_times()
    assert prepared(scheduler, "new", 50, now=4.0) == []
    for number in range(4):
        assert scheduler.handle(ev.Left(f"w{number}", seconds=1.0), 5.0) == []
    assert scheduler.next_deadline() == 14.0, "four times the load and an answer, since it was ready"
    assert scheduler.handle(ev.Tick(), 14.0) == [ev.Stop(paying)]


def test_a_turn_is_no_longer_than_changes_are_worth() -> None:
    """What changes cheaply changes often, though it answers all the time."""
    scheduler, paying = asked_for_four_times()
    scheduler.handle(ev.Left("w0", seconds=1.0), 4.0)
    assert prepared(scheduler, "new", 50, now=5.0) == []
    assert scheduler.next_deadline() == 14.0
    assert scheduler.handle(ev.Tick(), 14.0) == []
    assert scheduler.replicas[paying].state is ReplicaState.DRAINING


def test_a_turn_has_an_end_though_loads_and_answers_are_long() -> None:
    scheduler, _ = asked_for_four_times()
    scheduler.handle(ev.Left("w0", seconds=100.0), 4.0)
    assert prepared(scheduler, "new", 50, now=5.0) == []
    assert scheduler.next_deadline() == 32.0


def test_a_later_load_never_takes_what_an_earlier_one_waits_for() -> None:
    scheduler = with_budget(100)
    ready(scheduler, "busy", 60)
    scheduler.handle(ev.Wanted("w", "busy", 1e9), 1.0)
    assert prepared(scheduler, "large", 80, now=2.0) == []
    assert prepared(scheduler, "small", 20, now=3.0) == [], "small alone would keep large waiting for ever"
    assert starts(scheduler.handle(ev.Left("for-large"), 4.0)) == ["small"]
    assert [replica.model_id for replica in scheduler.replicas.values()] == ["busy", "small"]


def test_a_request_that_waited_too_long_for_a_slot_is_told_so() -> None:
    scheduler = with_budget(100)
    ready(scheduler, "m", 10)
    for number in range(3):
        scheduler.handle(ev.Wanted(f"w{number}", "m", 10.0), 1.0)
    assert scheduler.next_deadline() == 10.0
    (refuse,) = scheduler.handle(ev.Tick(), 10.0)
    assert isinstance(refuse, ev.Refuse)
    assert refuse.waiter_id == "w2"
    assert isinstance(refuse.fault, Overloaded)


def test_slots_go_round_between_organisations() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    for number in range(4):
        scheduler.handle(ev.Wanted(f"a{number}", "m", 1e9, share="a"), 1.0)
    scheduler.handle(ev.Wanted("b0", "m", 1e9, share="b"), 2.0)
    assert scheduler.handle(ev.Left("a0"), 3.0) == [ev.Grant("b0", replica)]
    assert scheduler.handle(ev.Left("a1"), 4.0) == [ev.Grant("a2", replica)]
    assert scheduler.handle(ev.Left("b0"), 5.0) == [ev.Grant("a3", replica)]


def test_a_full_line_is_shared_between_organisations() -> None:
    scheduler = Scheduler(LIMITS)
    for number in range(4):
        scheduler.handle(ev.Wanted(f"a{number}", "m", 1e9, share="a"), 0.0)
    displaced = [scheduler.handle(ev.Wanted(f"b{n}", "m", 1e9, share="b"), 1.0) for n in range(3)]
    assert [effect.waiter_id for (effect,) in displaced if isinstance(effect, ev.Refuse)] == [
        "a3",
        "a2",
        "b2",
    ]
    assert all(isinstance(e.fault, Overloaded) for (e,) in displaced if isinstance(e, ev.Refuse))


SPREAD = SchedulerLimits(max_replicas=2, idle_ttl_s=60.0, spread_after_s=2.0)


def crowded(budget: int) -> Scheduler:
    """A model with both slots taken, and one who waits since 1.0."""
    scheduler = Scheduler(SPREAD)
    scheduler.handle(ev.DevicesChanged((Capacity("cpu", "cpu", budget),)), 0.0)
    ready(scheduler, "m", 40)
    for number in range(3):
        scheduler.handle(ev.Wanted(f"w{number}", "m", 1e9), 1.0)
    return scheduler


def test_a_line_that_waits_gets_another_replica_where_memory_is_free() -> None:
    scheduler = crowded(budget=100)
    assert scheduler.next_deadline() == 3.0
    (start,) = scheduler.handle(ev.Tick(), 3.0)
    assert isinstance(start, ev.Start)
    assert scheduler.handle(ev.Started(start.replica_id), 4.0) == [ev.Grant("w2", start.replica_id)]
    for number in range(3, 6):
        scheduler.handle(ev.Wanted(f"w{number}", "m", 1e9), 5.0)
    assert scheduler.handle(ev.Tick(), 20.0) == [], "two are enough"


def test_nothing_goes_for_another_replica() -> None:
    scheduler = crowded(budget=79)
    assert scheduler.handle(ev.Tick(), 3.0) == []
    roomy = crowded(budget=100)
    other = ready(roomy, "other", 30, now=1.0)
    assert roomy.handle(ev.Tick(), 3.0) == []
    assert roomy.replicas[other].state is ReplicaState.READY


def test_another_replica_that_fails_to_start_refuses_nobody() -> None:
    scheduler = crowded(budget=100)
    (start,) = scheduler.handle(ev.Tick(), 3.0)
    assert isinstance(start, ev.Start)
    assert scheduler.handle(ev.Failed(start.replica_id, "no threads"), 4.0) == [ev.Stop(start.replica_id)]
    scheduler.handle(ev.Gone(start.replica_id), 4.0)
    assert scheduler.next_deadline() == 9.0, "tried again after the cool-down"
    assert starts(scheduler.handle(ev.Tick(), 9.0)) == ["m"]


ENDPOINT = Offer("external:own", "cpu", 0, 2, devices=0)


def attached(scheduler: Scheduler, now: float = 0.0) -> str:
    """The id of a replica that is an endpoint of the owner's, with both slots taken."""
    for number in range(2):
        scheduler.handle(ev.Wanted(f"w{number}", "theirs", 1e9), now)
    (load,) = (model.load for model in scheduler.models.values() if model.load)
    *_, start = scheduler.handle(ev.Prepared(load.id, (ENDPOINT,)), now)
    assert isinstance(start, ev.Start)
    assert (start.backend, start.devices) == ("external:own", ())
    _, *granted = scheduler.handle(ev.Started(start.replica_id), now)
    assert granted == [ev.Grant(f"w{number}", start.replica_id) for number in range(2)]
    return start.replica_id


def test_an_endpoint_takes_no_memory_and_its_slots_are_all_it_has() -> None:
    scheduler = Scheduler(SPREAD)
    scheduler.handle(ev.DevicesChanged((Capacity("cpu", "cpu", 100),)), 0.0)
    replica = attached(scheduler)
    assert scheduler.ledger.reserved("cpu") == 0
    assert scheduler.handle(ev.Wanted("third", "theirs", 1e9), 1.0) == []
    assert scheduler.handle(ev.Tick(), 10.0) == [], "another replica would ask the same endpoint for more"
    ready(scheduler, "ours", 100, now=11.0)
    assert scheduler.replicas[replica].state is ReplicaState.READY, "it is in nobody's way"
    assert scheduler.handle(ev.Left("w0"), 12.0) == [ev.Grant("third", replica)]


def test_an_endpoint_that_is_lost_is_asked_again_at_once_and_then_after_a_cool_down() -> None:
    scheduler = with_budget(100)
    replica = attached(scheduler)
    assert scheduler.handle(ev.Failed(replica, "it does not answer"), 70.0) == [ev.Stop(replica)]
    assert scheduler.handle(ev.Gone(replica), 70.0) == []
    scheduler.handle(ev.Wanted("next", "theirs", 1e9), 71.0)
    (load,) = (model.load for model in scheduler.models.values() if model.load)
    *_, start = scheduler.handle(ev.Prepared(load.id, (ENDPOINT,)), 71.0)
    assert isinstance(start, ev.Start)
    refuse, stop = scheduler.handle(ev.Failed(start.replica_id, "it does not answer"), 71.0)
    assert isinstance(refuse, ev.Refuse)
    assert isinstance(refuse.fault, LoadFailed)
    assert isinstance(stop, ev.Stop)
    (refuse,) = scheduler.handle(ev.Wanted("soon", "theirs", 1e9), 72.0)
    assert isinstance(refuse, ev.Refuse)
