"""The node's decisions: events in, effects out. Pure: no clock, no tasks, no processes (`runtime/DESIGN.md`).

Owns the course of loads and replicas. `handle` is the only way in; after every event `_settle` looks at what
is possible now, so no handler need know what another left behind. `runtime.line` knows who stands in line,
`runtime.ledger` whose memory is whose.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from runtime import events as ev
from runtime.demand import CooldownRule, Load, ModelDemand, Stage, Waiter
from runtime.errors import LoadFailed, ModelDoesNotFit, NodeStopping, Overloaded, RuntimeFault, Warming
from runtime.events import Need
from runtime.ledger import Held, Ledger
from runtime.line import Lines
from runtime.placement import Impossible, MakeRoom, Place
from runtime.progress import LoadProgress
from runtime.replica import Replica, ReplicaState, Step
from runtime.turns import TurnRule

_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class SchedulerLimits:
    """Times in seconds.

    Attributes:
        idle_ttl_s: a replica that answered nobody for so long is unloaded.
        linger_s: a load goes on for so long after its last waiter ran out of time.
        waiting_per_model: requests in one model's line.
        max_replicas: replicas of one model, where memory is free.
        spread_after_s: a request that waited so long for a slot has another replica started.
    """

    idle_ttl_s: float = 600.0
    linger_s: float = 300.0
    waiting_per_model: int = 128
    max_replicas: int = 1
    spread_after_s: float = 2.0
    cooldown: CooldownRule = field(default_factory=CooldownRule)
    turns: TurnRule = field(default_factory=TurnRule)


class Scheduler:
    """All models and replicas. Every `Wanted` gets one `Grant` or one `Refuse`, unless it `Left` first."""

    def __init__(self, limits: SchedulerLimits | None = None) -> None:
        self._limits = limits or SchedulerLimits()
        self._effects: list[ev.Effect] = []
        self._lines = Lines(self._emit)
        self.ledger = Ledger(self._limits.turns)
        self.models = self._lines.models
        self.replicas = self.ledger.replicas
        self.stopping = False
        self._counter = 0
        self._now = 0.0
        self._handlers: dict[type, Callable[[Any, float], None]] = {
            ev.Wanted: self._on_wanted,
            ev.Left: self._on_left,
            ev.Prepared: self._on_prepared,
            ev.PrepareFailed: self._on_prepare_failed,
            ev.Progressed: self._on_progressed,
            ev.Started: self._on_started,
            ev.Failed: self._on_failed,
            ev.Measured: self._on_measured,
            ev.Gone: self._on_gone,
            ev.Released: self._on_released,
            ev.DevicesChanged: self._on_devices_changed,
            ev.UnloadAsked: self._on_unload_asked,
            ev.StopAsked: self._on_stop_asked,
            ev.Tick: self._on_tick,
        }

    def handle(self, event: ev.Event, now: float) -> list[ev.Effect]:
        """Take one event at `now` (seconds, any monotonic clock); returns what is to be done, in order."""
        self._effects, self._now = [], now
        self._handlers[type(event)](event, now)
        if not self.stopping:
            self._settle(now)
        return self._effects

    def _emit(self, effect: ev.Effect) -> None:
        self._effects.append(effect)

    def next_deadline(self) -> float | None:
        """When a `Tick` is due although nothing else happens."""
        times = [time for model in self.models.values() for time in model.deadlines()]
        times += [r.last_used + self._limits.idle_ttl_s for r in self.replicas.values() if r.idle]
        if any(model.load and model.load.stage is Stage.PLACING for model in self.models.values()):
            times += self.ledger.turns_after(self._now)
        times += [time for model in self.models.values() if (time := self._spread_at(model)) > self._now]
        return min((time for time in times if time != _NEVER), default=None)

    # -- waiters

    def _on_wanted(self, event: ev.Wanted, now: float) -> None:
        model = self._lines.model(event.model_id)
        if fault := self._refusal(model, event, now):
            self._effects.append(ev.Refuse(event.waiter_id, fault))
            return
        self._lines.join(model, Waiter(event.waiter_id, event.deadline, event.need, event.share, now))

    def _refusal(self, model: ModelDemand, event: ev.Wanted, now: float) -> RuntimeFault | None:
        """Why a new waiter may not stand in line. The owner's load or pull ignores line and cool-down."""
        if self.stopping:
            return NodeStopping("the node is shutting down")
        if event.need is not Need.SLOT:
            return None
        if model.load is None and not model.is_ready and now < model.cool_until:
            return LoadFailed(model.model_id, model.error, retry_after_s=model.cool_until - now)
        full = model.waiting_for_slots() >= self._limits.waiting_per_model
        if full and not self._lines.make_room(model, event.share):
            return Overloaded(model.model_id)
        return None

    def _on_left(self, event: ev.Left, now: float) -> None:
        replica = self.replicas.get(self._lines.leave(event.waiter_id) or "")
        if replica is not None:
            replica.running.discard(event.waiter_id)
            replica.last_used = now
            replica.observe_answer(event.tokens, event.seconds)
            if replica.state is ReplicaState.DRAINING and not replica.running:
                self._stop(replica)

    # -- loads

    def _on_prepared(self, event: ev.Prepared, _now: float) -> None:
        model = self._loading(event.load_id)
        if model is not None and model.load is not None and model.load.stage is Stage.PREPARING:
            model.load.stage = Stage.PLACING
            model.offers = event.offers
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
        if model.waiters and not model.is_ready:
            self._effects.append(ev.Announce(tuple(model.waiters), progress))

    def _fail_load(
        self, model: ModelDemand, reason: str, now: float, *, fault: RuntimeFault | None = None
    ) -> None:
        """End the load and refuse who waited for it. A known fault explains itself and needs no cool-down."""
        model.load = None
        if fault is None:
            retry_after_s = model.load_failed(reason, now, self._limits.cooldown)
            fault = LoadFailed(model.model_id, reason, retry_after_s=retry_after_s)
        else:
            model.error = str(fault)
        if not model.is_ready:
            self._lines.refuse(model.waiters.values(), fault)

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
        model.load, model.error = None, ""
        model.serving.append(replica.id)

    def _on_failed(self, event: ev.Failed, now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None or not replica.may(Step.FAIL):
            return
        model, was = self.models[replica.model_id], replica.state
        replica.take(Step.FAIL)
        model.no_longer(replica.id)
        if was is ReplicaState.STARTING:
            self._fail_load(model, event.reason, now)
        elif was is ReplicaState.READY:
            up_s = now - replica.ready_at
            wait_s = model.replica_died(event.reason, up_s=up_s, now=now, rule=self._limits.cooldown)
            if wait_s > 0 and not model.is_ready:
                fault = LoadFailed(model.model_id, event.reason, retry_after_s=wait_s)
                self._lines.refuse(model.waiters.values(), fault)
        self._stop(replica)

    def _on_measured(self, event: ev.Measured, _now: float) -> None:
        if replica := self.replicas.get(event.replica_id):
            replica.measured = max(replica.measured, event.memory)

    def _stop(self, replica: Replica) -> None:
        if not replica.may(Step.STOP):
            return
        model = self.models[replica.model_id]
        if replica.state in (ReplicaState.READY, ReplicaState.DRAINING):
            model.succeeded()
        replica.take(Step.STOP)
        model.no_longer(replica.id)
        self._effects.append(ev.Stop(replica.id))

    def _drain(self, replica: Replica) -> None:
        if not replica.running:
            self._stop(replica)
        elif replica.may(Step.DRAIN):
            replica.take(Step.DRAIN)
            self.models[replica.model_id].no_longer(replica.id)

    def _on_gone(self, event: ev.Gone, _now: float) -> None:
        replica = self.replicas.get(event.replica_id)
        if replica is None or not replica.may(Step.GONE):
            return
        replica.take(Step.GONE)
        del self.replicas[replica.id]
        if event.held > 0:
            self.ledger.held[replica.id] = Held(replica.devices, event.held, event.reason)

    def _on_released(self, event: ev.Released, _now: float) -> None:
        self.ledger.held.pop(event.replica_id, None)

    def _on_devices_changed(self, event: ev.DevicesChanged, _now: float) -> None:
        self.ledger.set_capacities(event.capacities)

    # -- the owner and the clock

    def _on_unload_asked(self, event: ev.UnloadAsked, _now: float) -> None:
        model = self.models.get(event.model_id)
        if model is None:
            return
        if model.load is not None:
            self._abort(model)
            fault = LoadFailed(model.model_id, "it was unloaded by the owner")
            self._lines.refuse(model.waiters.values(), fault)
        for replica in self.ledger.of_model(model.model_id):
            self._drain(replica)

    def _on_stop_asked(self, event: ev.StopAsked, _now: float) -> None:
        self.stopping = True
        for model in self.models.values():
            self._abort(model)
            self._lines.refuse(model.waiters.values(), NodeStopping("the node is shutting down"))
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
        if expired and model.load is not None and not model.is_ready:
            model.load.wanted_until = now + self._limits.linger_s
            self._lines.refuse(expired, Warming(model.model_id, model.load.progress))
        else:
            self._lines.refuse(expired, Overloaded(model.model_id))

    # -- what is possible now

    def _settle(self, now: float) -> None:
        for model in self.models.values():
            self._lines.admit(model, [self.replicas[replica_id] for replica_id in model.serving], now)
            if model.load is not None and not model.load_is_wanted(now):
                self._abort(model)
        claimed = self._place_loads(now)
        for model in self.models.values():
            if model.load is None and model.waiters:
                self._begin_load(model, claimed, now)

    def _begin_load(self, model: ModelDemand, claimed: Collection[str], now: float) -> None:
        if not model.is_ready:
            model.load = self._new_load()
            self._effects.append(ev.Prepare(model.load.id, model.model_id))
        elif self._spread_at(model) <= now:
            plan = self.ledger.plan(model.offers, now, claimed=claimed)
            if isinstance(plan, Place):
                model.load = self._new_load()
                self._start(model, model.load, plan, now)

    def _new_load(self) -> Load:
        self._counter += 1
        return Load(id=f"load-{self._counter}", number=self._counter)

    def _spread_at(self, model: ModelDemand) -> float:
        """When a model that is served gets another replica, if its line goes on waiting and there is room."""
        if not model.is_ready or model.load is not None:
            return _NEVER
        if any(offer.devices == 0 for offer in model.offers):  # an endpoint's slots are all it has
            return _NEVER
        if len(self.ledger.of_model(model.model_id)) >= self._limits.max_replicas:
            return _NEVER
        since = [waiter.since for waiter in model.waiters.values() if waiter.need is Need.SLOT]
        return max(min(since) + self._limits.spread_after_s, model.cool_until) if since else _NEVER

    def _place_loads(self, now: float) -> Collection[str]:
        """Give memory to the loads that wait for it, earliest first; none takes what an earlier awaits.

        Returns the devices that are awaited.
        """
        placing = [(m, m.load) for m in self.models.values() if m.load and m.load.stage is Stage.PLACING]
        claimed: set[str] = set()
        for model, load in sorted(placing, key=lambda pair: pair[1].number):
            claimed.update(self._place(model, load, claimed, now))
        return claimed

    def _place(self, model: ModelDemand, load: Load, claimed: Collection[str], now: float) -> tuple[str, ...]:
        pressing = model.beyond_disk()
        plan = self.ledger.plan(model.offers, now, claimed=claimed, pressing=pressing)
        match plan:
            case Place():
                self._start(model, load, plan, now)
            case MakeRoom():
                for replica_id in plan.evict:
                    self._drain(self.replicas[replica_id])
                return plan.devices
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
            devices=plan.devices,
            backend=plan.offer.backend,
            reserved=plan.offer.memory,
            slots=plan.offer.slots,
            started_at=now,
        )
        replica.take(Step.START)
        self.replicas[replica.id] = replica
        load.stage, load.replica_id = Stage.STARTING, replica.id
        self._announce(model, LoadProgress("loading"))
        self._effects.append(ev.Start(replica.id, model.model_id, plan.devices, replica.backend))
