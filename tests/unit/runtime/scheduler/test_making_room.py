"""When a replica goes, for whom, and whose turn it is; and what of its memory may be promised again."""

from runtime import events as ev
from runtime.placement import Offer
from runtime.replica import ReplicaState
from runtime.scheduler import Scheduler
from tests.unit.runtime.scheduler.building import prepared, ready, starts, with_budget


def test_an_idle_replica_is_unloaded_after_its_time() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    assert scheduler.next_deadline() == 60.0
    assert scheduler.handle(ev.Tick(), 59.9) == []
    assert scheduler.handle(ev.Tick(), 60.0) == [ev.Stop(replica)]


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
