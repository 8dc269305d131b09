"""Who gets a slot, who is refused a place in the line, and when another replica is started for the line."""

from runtime import events as ev
from runtime.errors import Overloaded
from runtime.placement import Capacity
from runtime.replica import ReplicaState
from runtime.scheduler import Scheduler
from tests.unit.runtime.scheduler.building import LIMITS, SPREAD, ready, starts, with_budget


def test_the_line_is_capped() -> None:
    scheduler = Scheduler(LIMITS)
    for number in range(4):
        scheduler.handle(ev.Wanted(f"w{number}", "m", 10.0), 0.0)
    (refusal,) = scheduler.handle(ev.Wanted("w4", "m", 10.0), 0.0)
    assert isinstance(refusal, ev.Refuse)
    assert isinstance(refusal.fault, Overloaded)


def test_slots_are_given_in_order_and_handed_on() -> None:
    scheduler = with_budget(100)
    replica = ready(scheduler, "m", 10)
    granted = [scheduler.handle(ev.Wanted(f"w{n}", "m", 10.0), 1.0) for n in range(4)]
    assert granted == [[ev.Grant("w0", replica)], [ev.Grant("w1", replica)], [], []]
    assert scheduler.handle(ev.Left("w0"), 2.0) == [ev.Grant("w2", replica)]
    assert scheduler.handle(ev.Left("w3"), 2.0) == [], "one who left the line gets nothing"
    assert scheduler.handle(ev.Left("w1"), 2.0) == []


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
