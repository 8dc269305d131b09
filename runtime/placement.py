"""Where a replica goes, and which replicas make room for it. Pure: numbers in, a plan out.

Never plans beyond a device's budget, and never ends a replica that answers: it may only be asked to finish.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.snapshot import DeviceKind

_LEAST_LOAD_S = 0.1


@dataclass(frozen=True, slots=True)
class Offer:
    """One way to run a model: with this backend, on so many devices of that kind, so many bytes on each.

    On none at all where an endpoint of the owner's answers for it: that takes no memory of ours.
    """

    backend: str
    device_kind: DeviceKind
    memory: int
    slots: int
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Capacity:
    """What a device may hold for this node's replicas, in bytes, held memory already taken off."""

    device_id: str
    kind: DeviceKind
    budget: int


@dataclass(frozen=True, slots=True)
class Resident:
    """A replica with memory reserved on each of its devices.

    Attributes:
        leaving: it is being stopped, or ends what it answers; its memory comes back without our doing more.
        idle_s: seconds since it last answered, where it may go at once; None where it must not be evicted.
        over_s: seconds since its turn was over, where it may be asked to finish; None before.
        load_s: what bringing it back would cost.
    """

    replica_id: str
    devices: tuple[str, ...]
    memory: int
    leaving: bool = False
    idle_s: float | None = None
    over_s: float | None = None
    load_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """There is room now."""

    devices: tuple[str, ...]
    offer: Offer


@dataclass(frozen=True, slots=True)
class MakeRoom:
    """There will be room once these replicas are gone: idle ones, or such whose turn is over."""

    devices: tuple[str, ...]
    evict: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """It would fit on these devices, were they not busy. `coming`: enough of that is being freed already."""

    devices: tuple[str, ...]
    coming: bool = False


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
    pressing: bool = False,
) -> Plan:
    """Choose devices.

    Args:
        offers: ways to run the model, best first; a better offer with evictions beats a worse one without.
        capacities: every device.
        residents: everything that holds memory now.
        claimed: devices an earlier load is waiting for; taking their room would starve it.
        pressing: whether replicas that answer may be asked to finish, if their turn is over and there is no
            other way.
    """
    waiting: list[Wait] = []
    for asking in (False, True) if pressing else (False,):
        for offer in offers:
            plan = _for_offer(offer, capacities, residents, claimed, asking=asking)
            if isinstance(plan, Place | MakeRoom):
                return plan
            waiting += [plan] if plan else []
        if any(wait.coming for wait in waiting):
            break
    if not waiting:
        return Impossible(_shortfall(offers, capacities))
    return Wait(tuple(dict.fromkeys(device for wait in waiting for device in wait.devices)))


def _for_offer(
    offer: Offer,
    capacities: Sequence[Capacity],
    residents: Sequence[Resident],
    claimed: Collection[str],
    *,
    asking: bool,
) -> Place | MakeRoom | Wait | None:
    """The plan on the devices nearest to having room; None where too few could hold it when empty."""
    fitting = _fitting(offer, capacities)
    if len(fitting) < offer.devices:
        return None
    open_ones = [c for c in fitting if c.device_id not in claimed]
    everything = Wait(tuple(c.device_id for c in fitting))
    if len(open_ones) < offer.devices:
        return everything
    plans = [_on_device(offer, capacity, residents, asking=asking) for capacity in open_ones]
    plans.sort(key=lambda plan: (Place, MakeRoom, Wait).index(type(plan)))
    joined = _joined(offer, plans[: offer.devices])
    return Wait(everything.devices, coming=joined.coming) if isinstance(joined, Wait) else joined


def _fitting(offer: Offer, capacities: Sequence[Capacity]) -> list[Capacity]:
    return [c for c in capacities if c.kind == offer.device_kind and offer.memory <= c.budget]


def _joined(offer: Offer, plans: Sequence[Place | MakeRoom | Wait]) -> Place | MakeRoom | Wait:
    """One plan for all the devices of an offer; nobody is evicted for room that is of no use yet."""
    devices = tuple(device for plan in plans for device in plan.devices)
    if waits := [plan for plan in plans if isinstance(plan, Wait)]:
        return Wait(devices, coming=all(wait.coming for wait in waits))
    evict = dict.fromkeys(r for plan in plans if isinstance(plan, MakeRoom) for r in plan.evict)
    return MakeRoom(devices, tuple(evict)) if evict else Place(devices, offer)


def _on_device(
    offer: Offer, capacity: Capacity, residents: Sequence[Resident], *, asking: bool
) -> Place | MakeRoom | Wait:
    device = (capacity.device_id,)
    here = [r for r in residents if capacity.device_id in r.devices]
    missing = offer.memory - (capacity.budget - sum(r.memory for r in here))
    if missing <= 0:
        return Place(device, offer)
    missing -= sum(r.memory for r in here if r.leaving)
    if missing <= 0:
        return Wait(device, coming=True)
    evict = choose_evictions(here, missing, asking=asking)
    return MakeRoom(device, evict) if evict else Wait(device)


def choose_evictions(residents: Sequence[Resident], missing: int, *, asking: bool = False) -> tuple[str, ...]:
    """The least valuable replicas that free `missing` bytes; none where they cannot.

    Least valuable: idle longest, weighed by what bringing it back costs; then, if `asking`, those whose turn
    has been over the longest. A replica that turns out not to be needed because a later one alone frees
    enough is spared.
    """
    staying = [r for r in residents if not r.leaving]
    order = [r for r in staying if r.idle_s is not None]
    order.sort(key=lambda r: -(r.idle_s or 0.0) / max(r.load_s, _LEAST_LOAD_S))
    if asking:
        answering = [r for r in staying if r.idle_s is None and r.over_s is not None]
        order += sorted(answering, key=lambda r: -(r.over_s or 0.0))
    chosen: list[Resident] = []
    for resident in order:
        if sum(r.memory for r in chosen) >= missing:
            break
        chosen.append(resident)
    if sum(r.memory for r in chosen) < missing:
        return ()
    return tuple(r.replica_id for r in _needed(chosen, missing))


def _needed(chosen: Sequence[Resident], missing: int) -> list[Resident]:
    """Those of them without whom it would not be enough, the most valuable spared first."""
    needed = list(chosen)
    for resident in reversed(chosen[:-1]):
        if sum(r.memory for r in needed) - resident.memory >= missing:
            needed.remove(resident)
    return needed


def _shortfall(offers: Sequence[Offer], capacities: Sequence[Capacity]) -> str:
    if not offers:
        return "no backend can run it"
    kinds = {offer.device_kind for offer in offers}
    usable = [c for c in capacities if c.kind in kinds]
    if not usable:
        return f"it needs a device of kind {' or '.join(sorted(kinds))}"
    least = min(offers, key=lambda offer: (offer.devices, offer.memory))
    best = max(c.budget for c in usable)
    needed = f"{least.memory / 1e6:,.0f} MB"
    needs = needed if least.devices == 1 else f"{needed} on each of {least.devices} devices"
    return f"it needs {needs} and at most {max(0, best) / 1e6:,.0f} MB can be had"
