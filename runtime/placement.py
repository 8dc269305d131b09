"""Where a replica goes, and which idle replicas make room for it. Pure: numbers in, a plan out.

Never plans beyond a device's budget, and never evicts a replica that is answering.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.snapshot import DeviceKind

_LEAST_LOAD_S = 0.1


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to run a model: with this backend, on that kind of device, taking so many bytes."""

    backend: str
    device_kind: DeviceKind
    memory: int
    slots: int


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device may hold for this node's replicas, in bytes, held memory already taken off."""

    device_id: str
    kind: DeviceKind
    budget: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A replica with memory reserved on a device.

    Attributes:
        leaving: it is being stopped; its memory comes back without our doing more.
        idle_s: seconds since it last answered, where it is idle; None where it must not be evicted.
        load_s: what bringing it back would cost.
    """

    replica_id: str
    device_id: str
    memory: int
    leaving: bool = False
    idle_s: float | None = None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """There is room now."""

    device_id: str
    offer: Offer


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """There will be room once these idle replicas are gone."""

    device_id: str
    evict: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """It would fit on these devices, were they not busy or being freed already."""

    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Impossible:
    """No device could hold it even when empty."""

    reason: str


Plan = Place | MakeRoom | Wait | Impossible


def plan_placement(
    offers: Sequence[Offer],
    capacities: Sequence[Capacity],
    residents: Sequence[Resident],
    *,
    claimed: Collection[str] = (),
) -> Plan:
    """Choose a device.

    Args:
        offers: ways to run the model, best first; a better offer with evictions beats a worse one without.
        capacities: every device.
        residents: everything that holds memory now.
        claimed: devices an earlier load is waiting for; taking their room would starve it.
    """
    waiting: list[str] = []
    for offer in offers:
        fitting = [c for c in capacities if c.kind == offer.device_kind and offer.memory <= c.budget]
        for plan in _by_preference(offer, [c for c in fitting if c.device_id not in claimed], residents):
            if not isinstance(plan, Wait):
                return plan
        waiting += [c.device_id for c in fitting]
    return Wait(tuple(dict.fromkeys(waiting))) if waiting else Impossible(_shortfall(offers, capacities))


def _by_preference(offer: Offer, fitting: list[Capacity], residents: Sequence[Resident]) -> list[Plan]:
    """The plan for each device, those without evictions first."""
    plans = [_on_device(offer, capacity, residents) for capacity in fitting]
    return sorted(plans, key=lambda plan: (Place, MakeRoom, Wait).index(type(plan)))


def _on_device(offer: Offer, capacity: Capacity, residents: Sequence[Resident]) -> Plan:
    here = [r for r in residents if r.device_id == capacity.device_id]
    missing = offer.memory - (capacity.budget - sum(r.memory for r in here))
    if missing <= 0:
        return Place(capacity.device_id, offer)
    missing -= sum(r.memory for r in here if r.leaving)
    if missing <= 0:
        return Wait((capacity.device_id,))
    evict = choose_evictions(here, missing)
    return MakeRoom(capacity.device_id, evict) if evict else Wait((capacity.device_id,))


def choose_evictions(residents: Sequence[Resident], missing: int) -> tuple[str, ...]:
    """The least valuable idle replicas that free `missing` bytes; none where they cannot.

    Least valuable: idle longest, weighed by what bringing it back costs. A replica that turns out not to be
    needed because a later one alone frees enough is spared.
    """
    idle = [r for r in residents if r.idle_s is not None and not r.leaving]
    idle.sort(key=lambda r: -(r.idle_s or 0.0) / max(r.load_s, _LEAST_LOAD_S))
    chosen: list[Resident] = []
    for resident in idle:
        if sum(r.memory for r in chosen) >= missing:
            break
        chosen.append(resident)
    freed = sum(r.memory for r in chosen)
    if freed < missing:
        return ()
    for resident in reversed(chosen[:-1]):
        if freed - resident.memory >= missing:
            chosen.remove(resident)
            freed -= resident.memory
    return tuple(r.replica_id for r in chosen)


def _shortfall(offers: Sequence[Offer], capacities: Sequence[Capacity]) -> str:
    if not offers:
        return "no backend can run it"
    kinds = {offer.device_kind for offer in offers}
    usable = [c for c in capacities if c.kind in kinds]
    if not usable:
        return f"it needs a device of kind {' or '.join(sorted(kinds))}"
    needed = min(offer.memory for offer in offers)
    best = max(c.budget for c in usable)
    return f"it needs {needed / 1e6:,.0f} MB and at most {max(0, best) / 1e6:,.0f} MB can be had"
