"""Whose memory is whose: what replicas reserve, what gone ones still hold, and who may be asked to make room.

Pure state of the scheduler. Must not know waiters or loads.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from runtime.placement import Capacity, Offer, Plan, Resident, plan_placement
from runtime.replica import Replica, ReplicaState
from runtime.turns import TurnRule

_LEAVING = (ReplicaState.DRAINING, ReplicaState.STOPPING, ReplicaState.FAILED)


@dataclass(frozen=True, slots=True)
class Held:
    """Memory a gone replica did not give back: at most `memory` bytes on each of its devices."""

    devices: tuple[str, ...]
    memory: int
    reason: str


class Ledger:
    """The replicas of the node, by id, and the memory of its devices."""

    def __init__(self, turns: TurnRule) -> None:
        self.replicas: dict[str, Replica] = {}
        self.held: dict[str, Held] = {}
        self._turns = turns
        self._capacities: tuple[Capacity, ...] = ()

    def set_capacities(self, capacities: Sequence[Capacity]) -> None:
        """Take note of the devices and their budgets, all of them."""
        self._capacities = tuple(capacities)

    def of_model(self, model_id: str) -> list[Replica]:
        """Every replica of one model, whatever its state."""
        return [replica for replica in self.replicas.values() if replica.model_id == model_id]

    def reserved(self, device_id: str) -> int:
        """Bytes reserved for replicas on a device."""
        return sum(r.memory for r in self.replicas.values() if device_id in r.devices)

    def held_on(self, device_id: str) -> list[Held]:
        """Memory on a device that is not promised, because a gone replica still holds it."""
        return [held for held in self.held.values() if device_id in held.devices]

    def plan(
        self, offers: Sequence[Offer], now: float, *, claimed: Collection[str] = (), pressing: bool = False
    ) -> Plan:
        """Where a replica could go now. `pressing`: somebody waits for it, so turns that are over end."""
        return plan_placement(offers, self._free(), self._residents(now), claimed=claimed, pressing=pressing)

    def turns_after(self, now: float) -> Iterator[float]:
        """Every later moment at which a replica may be asked for its place though nothing else happens."""
        for replica in self.replicas.values():
            if replica.state is ReplicaState.READY:
                due = self._turns.idle_until(replica) if replica.idle else self._turns.over_at(replica)
                if due > now:
                    yield due

    def _free(self) -> list[Capacity]:
        return [
            Capacity(c.device_id, c.kind, c.budget - sum(h.memory for h in self.held_on(c.device_id)))
            for c in self._capacities
        ]

    def _residents(self, now: float) -> list[Resident]:
        return [self._resident(replica, now) for replica in self.replicas.values()]

    def _resident(self, replica: Replica, now: float) -> Resident:
        ready = replica.state is ReplicaState.READY
        evictable = replica.idle and self._turns.idle_until(replica) <= now
        over_s = now - self._turns.over_at(replica)
        return Resident(
            replica_id=replica.id,
            devices=replica.devices,
            memory=replica.memory,
            leaving=replica.state in _LEAVING,
            idle_s=now - replica.last_used if evictable else None,
            over_s=over_s if ready and over_s >= 0 else None,
            load_s=replica.load_seconds,
        )
