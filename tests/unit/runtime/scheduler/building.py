"""Schedulers brought to where a test begins, through their own events and on a clock of the test's."""

from runtime import events as ev
from runtime.events import Need
from runtime.placement import Capacity, Offer
from runtime.scheduler import Scheduler, SchedulerLimits

LIMITS = SchedulerLimits(idle_ttl_s=60.0, linger_s=30.0, waiting_per_model=4)
SPREAD = SchedulerLimits(max_replicas=2, idle_ttl_s=60.0, spread_after_s=2.0)


def with_budget(budget: int) -> Scheduler:
    scheduler = Scheduler(LIMITS)
    scheduler.handle(ev.DevicesChanged((Capacity("cpu", "cpu", budget),)), 0.0)
    return scheduler


def ready(scheduler: Scheduler, model: str, memory: int, now: float = 0.0) -> str:
    """Bring a model up through the scheduler's own events; returns the replica."""
    scheduler.handle(ev.Wanted(f"up-{model}", model, 1e9, Need.READY), now)
    load = scheduler.models[model].load
    assert load is not None
    effects = scheduler.handle(ev.Prepared(load.id, (Offer("engine", "cpu", memory, 2),)), now)
    start = next(effect for effect in effects if isinstance(effect, ev.Start))
    scheduler.handle(ev.Started(start.replica_id), now)
    return start.replica_id


def prepared(scheduler: Scheduler, model: str, memory: int, now: float) -> list[ev.Effect]:
    """Somebody wants the model, and it is found to take so much."""
    (prepare,) = scheduler.handle(ev.Wanted(f"for-{model}", model, 1e9), now)
    assert isinstance(prepare, ev.Prepare)
    return scheduler.handle(ev.Prepared(prepare.load_id, (Offer("engine", "cpu", memory, 1),)), now)


def starts(effects: list[ev.Effect]) -> list[str]:
    return [effect.model_id for effect in effects if isinstance(effect, ev.Start)]
