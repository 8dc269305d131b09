"""An endpoint of the owner's as a replica: it takes no memory, and is lost and asked again."""

from runtime import events as ev
from runtime.errors import LoadFailed
from runtime.placement import Capacity, Offer
from runtime.replica import ReplicaState
from runtime.scheduler import Scheduler
from tests.unit.runtime.scheduler.building import SPREAD, ready, with_budget

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
