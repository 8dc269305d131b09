"""Puts the node's snapshot together from what its parts know. Pure: reads values, keeps none."""

from collections import Counter
from collections.abc import Mapping, Sequence

from models.catalog import ModelSpec
from runtime.budget import DeviceReading
from runtime.demand import ModelDemand
from runtime.preparation import Preparation
from runtime.progress import LoadProgress, Phase
from runtime.replica import Replica, ReplicaState
from runtime.scheduler import Scheduler
from runtime.snapshot import DeviceView, ModelState, ModelView, NodeSnapshot, ReplicaView

_PHASES: dict[ReplicaState, Phase] = {
    ReplicaState.STARTING: "loading",
    ReplicaState.READY: "ready",
    ReplicaState.DRAINING: "ready",
    ReplicaState.FAILED: "failed",
}
_READY = LoadProgress("ready")
_COLD = LoadProgress("queued")


def survey(
    scheduler: Scheduler, preparation: Preparation, readings: Sequence[DeviceReading], pids: Mapping[str, int]
) -> NodeSnapshot:
    """The node at this moment; `pids` by replica."""
    reason = "the node is shutting down" if scheduler.stopping else _lacks_engines(scheduler, preparation)
    return NodeSnapshot(
        accepting=reason is None,
        reason=reason,
        devices=tuple(_device(scheduler, reading) for reading in readings),
        replicas=tuple(_replica(scheduler, r, pids.get(r.id)) for r in scheduler.replicas.values()),
        models=tuple(_model(scheduler, preparation, readings, spec) for spec in preparation.offered),
    )


def _lacks_engines(scheduler: Scheduler, preparation: Preparation) -> str | None:
    """Why nothing at all can be served for want of an engine; what is loaded already goes on being served."""
    if any(demand.is_ready for demand in scheduler.models.values()):
        return None
    faults = [preparation.lacks_engine(spec) for spec in preparation.offered]
    return str(faults[0]) if faults and all(faults) else None


def _device(scheduler: Scheduler, reading: DeviceReading) -> DeviceView:
    held = scheduler.ledger.held_on(reading.id)
    held_bytes = sum(one.memory for one in held)
    return DeviceView(
        id=reading.id,
        kind=reading.kind,
        name=reading.name,
        memory_total=reading.memory_total,
        memory_used_by_others=reading.used_by_others,
        memory_budget=max(0, reading.budget - held_bytes),
        memory_reserved=scheduler.ledger.reserved(reading.id),
        memory_held=held_bytes,
        held_reason="; ".join(one.reason for one in held) or None,
    )


def _replica(scheduler: Scheduler, replica: Replica, pid: int | None) -> ReplicaView:
    model = scheduler.models[replica.model_id]
    phase = _PHASES.get(replica.state, "queued")
    return ReplicaView(
        id=replica.id,
        model=replica.model_id,
        state=replica.state.value,
        slots=replica.slots,
        running=len(replica.running),
        waiting=model.waiting_for_slots() if model.serving[:1] == [replica.id] else 0,
        tokens_per_second=replica.tokens_per_second,
        phase=phase,
        progress=LoadProgress(phase).fraction,
        device=", ".join(replica.devices) or replica.backend,
        reserved_bytes=replica.reserved * len(replica.devices),
        pid=pid,
        measured_bytes=replica.measured * len(replica.devices),
    )


def _model(
    scheduler: Scheduler, preparation: Preparation, readings: Sequence[DeviceReading], spec: ModelSpec
) -> ModelView:
    known, endpoint = preparation.known(spec.id), preparation.endpoint(spec.id)
    demand = scheduler.models.get(spec.id) or ModelDemand(spec.id)
    progress = _progress(demand)
    context_lengths = [plan.context_length for plan in known.plans] if known else []
    return ModelView(
        model=spec.id,
        digest=endpoint.key if endpoint else known.stored.digest if known else None,
        size_bytes=0 if endpoint else known.stored.size_bytes if known else spec.size_bytes or 0,
        on_disk=known is not None,
        state=_state(demand),
        fits=_servable(demand, preparation, spec) and _fits(scheduler, preparation, readings, spec),
        context_length=max(context_lengths, default=spec.context_length),
        capabilities=tuple(sorted(preparation.capabilities(spec, backends_of(scheduler, spec.id)))),
        phase=progress.phase,
        done_bytes=progress.done_bytes,
        total_bytes=progress.total_bytes,
        error=demand.error or None,
    )


def backends_of(scheduler: Scheduler, model_id: str) -> frozenset[str]:
    """What its replicas run on, or are about to."""
    replicas = scheduler.replicas.values()
    return frozenset(replica.backend for replica in replicas if replica.model_id == model_id)


def _state(demand: ModelDemand) -> ModelState:
    if demand.is_ready:
        return "ready"
    return "cold" if demand.load is None else "warming"


def _progress(demand: ModelDemand) -> LoadProgress:
    if demand.is_ready:
        return _READY
    if demand.load is not None:
        return demand.load.progress
    return LoadProgress("failed") if demand.error else _COLD


def _servable(demand: ModelDemand, preparation: Preparation, spec: ModelSpec) -> bool:
    return demand.is_ready or preparation.lacks_engine(spec) is None


def _fits(
    scheduler: Scheduler, preparation: Preparation, readings: Sequence[DeviceReading], spec: ModelSpec
) -> bool:
    """Whether it would fit were every idle replica gone: what this node may be asked for."""
    if preparation.endpoint(spec.id) is not None:
        return True
    room = Counter[tuple[str, int]]()
    for reading in readings:
        budget = reading.budget - sum(one.memory for one in scheduler.ledger.held_on(reading.id))
        if reading.kind in preparation.kinds(spec):
            for shards, needed in preparation.memory_guess(spec).items():
                room[reading.kind, shards] += needed <= budget
    return any(devices >= shards for (_, shards), devices in room.items())
