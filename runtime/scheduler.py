"""The node's decisions: events in, effects out. Pure: no clock, no tasks, no processes (`runtime/DESIGN.md`).

Owns which models are loaded, who is admitted, and what goes to make room. `handle` is the only way in;
after every event `_settle` looks at what is possible now, so no handler need know what another left behind.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from runtime import events as ev
from runtime.demand import CooldownRule, Load, ModelDemand, Stage, Waiter
from runtime.errors import LoadFailed, ModelDoesNotFit, NodeStopping, Overloaded, RuntimeFault, Warming
from runtime.events import Need
from runtime.placement import Capacity, Impossible, MakeRoom, Place, Resident, plan_placement
from runtime.progress import LoadProgress
from runtime.replica import Replica, ReplicaState, Step


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Times in seconds.

    Attributes:
        idle_ttl_s: a replica that answered nobody for so long is unloaded.
        linger_s: a load goes on for so long after its last waiter ran out of time.
        waiting_per_model: requests in one model's line.
    """

    idle_ttl_s: float = 600.0
    linger_s: float = 300.0
    waiting_per_model: int = 128
    cooldown: CooldownRule = field(default_factory=CooldownRule)


@dataclass(frozen=True, slots=True)
class Held:
    """Memory a gone replica did not give back."""

    device_id: str
    memory: int
    reason: str


class Scheduler:
    """All models and replicas. Every `Wanted` gets one `Grant` or one `Refuse`, unless it `Left` first."""

    def __init__(self, limits: SchedulerLimits | None = None) -> None:
        self._limits = limits or SchedulerLimits()
        self.models: dict[str, ModelDemand] = {}
        self.replicas: dict[str, Replica] = {}
        self.held: dict[str, Held] = {}
        self.stopping = False
        self._capacities: dict[str, Capacity] = {}
        self._models_of_waiters: dict[str, ModelDemand] = {}
        self._granted: dict[str, str] = {}
        self._counter = 0
        self._effects: list[ev.Effect] = []
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.Wanted: self._on_wanted,
            ev.Left: self._on_left,
            ev.Prepared: self._on_prepared,
            ev.PrepareFailed: self._on_prepare_failed,
            ev.Progressed: self._on_progressed,
            ev.Started: self._on_started,
            ev.Failed: self._on_failed,
            ev.Gone: self._on_gone,
            ev.Released: self._on_released,
            ev.DevicesChanged: self._on_devices_changed,
            ev.UnloadAsked: self._on_unload_asked,
            ev.StopAsked: self._on_stop_asked,
            ev.Tick: self._on_tick,
        }

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event at `now` (seconds, any monotonic clock); returns what is to be done, in order."""
        self._effects = []
        self._handlers[type(event)](event, now)
        self._settle(now)
        return self._effects

    def next_deadline(self) -> float | None:
        """When a `Tick` is due although nothing else happens."""
        times = [time for model in self.models.values() for time in model.deadlines()]
        times += [r.last_used + self._limits.idle_ttl_s for r in self.replicas.values() if r.idle]
        return min((time for time in times if time != float("inf")), default=None)

    def reserved(self, device_id: str) -> int:
        """Bytes reserved for replicas on a device."""
        return sum(r.memory for r in self.replicas.values() if r.device_id == device_id)

    def held_on(self, device_id: str) -> list[Held]:
        """Memory on a device that is not promised, because a gone replica still holds it."""
        return [held for held in self.held.values() if held.device_id == device_id]

    # -- waiters

    def _on_wanted(self, event: ev.Wanted, now: float) -> None:
        model = self.models.setdefault(event.model_id, ModelDemand(event.model_id))
        if fault := self._refusal(model, event.need, now):
            self._effects.append(ev.Refuse(event.waiter_id, fault))
            return
        model.waiters[event.waiter_id] = Waiter(event.waiter_id, event.deadline, event.need)
        self._models_of_waiters[event.waiter_id] = model

    def _refusal(self, model: ModelDemand, need: Need, now: float) -> RuntimeFault | None:
        """Why a new waiter may not stand in line. The owner's load or pull ignores line and cool-down."""
        if self.stopping:
            return NodeStopping("the node is shutting down")
        if need is not Need.SLOT:
            return None
        if model.waiting_for_slots() >= self._limits.waiting_per_model:
            return Overloaded(model.model_id)
        if model.load is None and model.replica_id is None and now < model.cool_until:
            return LoadFailed(model.model_id, model.error, retry_after_s=model.cool_until - now)
        return None

    def _on_left(self, event: ev.Left, now: float) -> None:
        if model := self._models_of_waiters.pop(event.waiter_id, None):
            del model.waiters[event.waiter_id]
        replica = self.replicas.get(self._granted.pop(event.waiter_id, ""))
        if replica is not None:
            replica.running.discard(event.waiter_id)
            replica.last_used = now
            replica.observe_speed(event.tokens, event.seconds)
            if replica.state is ReplicaState.DRAINING and not replica.running:
                self._stop(replica)

    def _grant(self, waiter: Waiter, replica: Replica | None, now: float) -> None:
        self._forget(waiter)
        if replica is not None and waiter.need is Need.SLOT:
            replica.running.add(waiter.id)
            self._granted[waiter.id] = replica.id
        if replica is not None:
            replica.last_used = now
        self._effects.append(ev.Grant(waiter.id, replica.id if replica else None))

    def _refuse(self, waiters: Iterable[Waiter], fault: RuntimeFault) -> None:
        for waiter in list(waiters):
            self._forget(waiter)
            self._effects.append(ev.Refuse(waiter.id, fault))

    def _forget(self, waiter: Waiter) -> None:
        del self._models_of_waiters.pop(waiter.id).waiters[waiter.id]

    # -- loads

    def _on_prepared(self, event: ev.Prepared, _now: float) -> None:
        model = self._loading(event.load_id)
        if model is not None and model.load is not None and model.load.stage is Stage.PREPARING:
            model.load.stage = Stage.PLACING
            model.load.offers = event.offers
            model.load.progress = LoadProgress("queued")

    def _on_prepare_failed(self, event: ev.PrepareFailed, now: float) -> None:
        if model := self._loading(event.load_id):
            self._fail_load(model, event.reason, now, fault=event.fault)

    def _on_progressed(self, event: ev.Progressed, _now: float) -> None:
        model = self._loading(event.load_id)
        if model is not None and model.load is not None and model.load.stage is Stage.PREPARING:
            self._announce(model, event.progress)

    def _loading(self, load_id: str) -> ModelDemand | None:
        """The model of a load that is still wanted; None for news of one that was given up."""
        return next((m for m in self.models.values() if m.load is not None and m.load.id == load_id), None)

    def _announce(self, model: ModelDemand, progress: LoadProgress) -> None:
        if model.load is not None:
            model.load.progress = progress
        if model.waiters:
            self._effects.append(ev.Announce(tuple(model.waiters), progress))

    def _fail_load(
        self, model: ModelDemand, reason: str, now: float, *, fault: RuntimeFault | None = None
    ) -> None:
        """End the load and refuse who waited for it. A known fault explains itself and needs no cool-down."""
        model.load = None
        if fault is None:
            retry_after_s = model.load_failed(reason, now, self._limits.cooldown)
            fault = LoadFailed(model.model_id, reason, retry_after_s=retry_after_s)
        model.error = str(fault)
        self._refuse(model.waiters.values(), fault)

    def _abort(self, model: ModelDemand) -> None:
        load, model.load = model.load, None
        if load is None:
            return
        if load.stage is Stage.PREPARING:
            self._effects.append(ev.CancelPrepare(load.id))
        elif load.replica_id is not None:
            self._stop(self.replicas[load.replica_id])

    # -- replicas

    def _on_started(self, event: ev.Started, now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None or not replica.may(Step.UP):
            return
        replica.take(Step.UP)
        replica.last_used = now
        replica.load_seconds = now - replica.started_at
        model = self.models[replica.model_id]
        self._announce(model, LoadProgress("ready"))
        model.load, model.replica_id, model.error = None, replica.id, ""

    def _on_failed(self, event: ev.Failed, now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None or not replica.may(Step.FAIL):
            return
        model, was = self.models[replica.model_id], replica.state
        replica.take(Step.FAIL)
        if was is ReplicaState.STARTING:
            self._fail_load(model, event.reason, now)
        elif was is ReplicaState.READY:
            up_s = now - replica.started_at - replica.load_seconds
            wait_s = model.replica_died(event.reason, up_s=up_s, now=now, rule=self._limits.cooldown)
            if wait_s > 0:
                fault = LoadFailed(model.model_id, event.reason, retry_after_s=wait_s)
                self._refuse(model.waiters.values(), fault)
        self._stop(replica)

    def _stop(self, replica: Replica) -> None:
        if not replica.may(Step.STOP):
            return
        model = self.models[replica.model_id]
        if replica.state in (ReplicaState.READY, ReplicaState.DRAINING):
            model.succeeded()
        replica.take(Step.STOP)
        if model.replica_id == replica.id:
            model.replica_id = None
        self._effects.append(ev.Stop(replica.id))

    def _drain(self, replica: Replica) -> None:
        if not replica.running:
            self._stop(replica)
        elif replica.may(Step.DRAIN):
            replica.take(Step.DRAIN)
            self.models[replica.model_id].replica_id = None

    def _on_gone(self, event: ev.Gone, _now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None or not replica.may(Step.GONE):
            return
        replica.take(Step.GONE)
        del self.replicas[replica.id]
        if event.held > 0:
            self.held[replica.id] = Held(replica.device_id, event.held, event.reason)

    def _on_released(self, event: ev.Released, _now: float) -> None:
        self.held.pop(event.replica_id, None)

    def _on_devices_changed(self, event: ev.DevicesChanged, _now: float) -> None:
        self._capacities = {capacity.device_id: capacity for capacity in event.capacities}

    # -- the owner and the clock

    def _on_unload_asked(self, event: ev.UnloadAsked, _now: float) -> None:
        model = self.models.get(event.model_id)
        if model is None:
            return
        if model.load is not None:
            self._abort(model)
            self._refuse(model.waiters.values(), LoadFailed(model.model_id, "it was unloaded by the owner"))
        for replica in self._of_model(model.model_id):
            self._drain(replica)

    def _on_stop_asked(self, event: ev.StopAsked, _now: float) -> None:
        self.stopping = True
        for model in self.models.values():
            self._abort(model)
            self._refuse(model.waiters.values(), NodeStopping("the node is shutting down"))
        for replica in list(self.replicas.values()):
            if event.cut:
                self._stop(replica)
            else:
                self._drain(replica)

    def _on_tick(self, _event: ev.Tick, now: float) -> None:
        for model in self.models.values():
            self._expire(model, now)
        for replica in list(self.replicas.values()):
            if replica.idle and replica.last_used + self._limits.idle_ttl_s <= now:
                self._stop(replica)

    def _expire(self, model: ModelDemand, now: float) -> None:
        """Answer those whose time is up; their load goes on for a while: they were told to come back."""
        expired = model.expired(now)
        if expired and model.load is not None:
            model.load.wanted_until = now + self._limits.linger_s
            self._refuse(expired, Warming(model.model_id, model.load.progress))
        else:
            self._refuse(expired, Overloaded(model.model_id))

    # -- what is possible now

    def _settle(self, now: float) -> None:
        if self.stopping:
            return
        for model in self.models.values():
            self._admit(model, now)
            if model.load is None and model.replica_id is None and model.waiters:
                self._begin_load(model)
            elif model.load is not None and not model.load_is_wanted(now):
                self._abort(model)
        self._place_loads(now)

    def _admit(self, model: ModelDemand, now: float) -> None:
        """Grant whatever can be granted, in order of arrival."""
        replica = self.replicas.get(model.replica_id or "")
        if not model.waiters or not model.on_disk():
            return
        for waiter in list(model.waiters.values()):
            if waiter.need is Need.DISK:
                self._grant(waiter, None, now)
            elif replica is not None and (waiter.need is Need.READY or replica.has_free_slot):
                self._grant(waiter, replica, now)

    def _begin_load(self, model: ModelDemand) -> None:
        self._counter += 1
        model.load = Load(id=f"load-{self._counter}", number=self._counter)
        self._effects.append(ev.Prepare(model.load.id, model.model_id))

    def _place_loads(self, now: float) -> None:
        """Give memory to the loads that wait for it, earliest first; none takes what an earlier awaits."""
        placing = [(m, m.load) for m in self.models.values() if m.load and m.load.stage is Stage.PLACING]
        claimed: set[str] = set()
        for model, load in sorted(placing, key=lambda pair: pair[1].number):
            claimed.update(self._place(model, load, claimed, now))

    def _place(self, model: ModelDemand, load: Load, claimed: set[str], now: float) -> tuple[str, ...]:
        plan = plan_placement(load.offers, self._free_capacities(), self._residents(now), claimed=claimed)
        match plan:
            case Place():
                self._start(model, load, plan, now)
            case MakeRoom():
                for replica_id in plan.evict:
                    self._stop(self.replicas[replica_id])
                return (plan.device_id,)
            case Impossible():
                fault = ModelDoesNotFit(model.model_id, plan.reason)
                self._fail_load(model, plan.reason, now, fault=fault)
            case _:
                return plan.devices
        return ()

    def _start(self, model: ModelDemand, load: Load, plan: Place, now: float) -> None:
        self._counter += 1
        replica = Replica(
            id=f"{model.model_id}#{self._counter}",
            model_id=model.model_id,
            device_id=plan.device_id,
            backend=plan.offer.backend,
            memory=plan.offer.memory,
            slots=plan.offer.slots,
            started_at=now,
        )
        replica.take(Step.START)
        self.replicas[replica.id] = replica
        load.stage, load.replica_id = Stage.STARTING, replica.id
        self._announce(model, LoadProgress("loading"))
        self._effects.append(ev.Start(replica.id, model.model_id, plan.device_id, replica.backend))

    def _free_capacities(self) -> list[Capacity]:
        return [
            Capacity(c.device_id, c.kind, c.budget - sum(h.memory for h in self.held_on(c.device_id)))
            for c in self._capacities.values()
        ]

    def _residents(self, now: float) -> list[Resident]:
        return [
            Resident(
                replica_id=r.id,
                device_id=r.device_id,
                memory=r.memory,
                leaving=r.state in (ReplicaState.STOPPING, ReplicaState.FAILED),
                idle_s=now - r.last_used if r.idle else None,
                load_s=r.load_seconds,
            )
            for r in self.replicas.values()
        ]

    def _of_model(self, model_id: str) -> list[Replica]:
        return [r for r in self.replicas.values() if r.model_id == model_id]
