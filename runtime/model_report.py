"""Whether a model fits each device, and why: what `porten models show` says of memory. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from models.header import GgufHeader, ModelHeader, SafetensorsHeader
from runtime.backends.base import ReplicaPlan
from runtime.snapshot import DeviceKind

Verdict = Literal["fits", "fits after eviction", "does not fit"]

# llama.cpp's numbers for the main quantisation of a file (its `llama_ftype`).
_FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    32: "BF16",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
}


@dataclass(frozen=True, slots=True)
class DeviceRoom:
    """A device's memory in bytes: `budget` for all models together, of which `reserved` is taken now."""

    id: str
    kind: DeviceKind
    budget: int
    reserved: int = 0


@dataclass(frozen=True, slots=True)
class Fit:
    """One engine on one device; bytes. `shards`: over so many devices of the kind, with `needed` on each."""

    backend: str
    device: str
    needed: int
    shards: int
    free: int
    budget: int
    verdict: Verdict


def judge(needed: int, room: DeviceRoom) -> Verdict:
    """Whether so many bytes fit now, once other models are gone, or not at all."""
    if needed <= room.budget - room.reserved:
        return "fits"
    return "fits after eviction" if needed <= room.budget else "does not fit"


def fits_of(
    plans: Sequence[ReplicaPlan], kinds: Mapping[str, Sequence[DeviceKind]], rooms: Sequence[DeviceRoom]
) -> list[Fit]:
    """Each plan on each device of a kind that its backend can use; `kinds` by backend."""
    return [
        _fit(plan, room, sum(other.kind == room.kind for other in rooms))
        for plan in plans
        for room in rooms
        if room.kind in kinds[plan.backend]
    ]


def _fit(plan: ReplicaPlan, room: DeviceRoom, alike: int) -> Fit:
    """On as few devices as will do, of the `alike` ones there are."""
    possible = [shards for shards in plan.shards if shards <= alike] or list(plan.shards[:1])
    good = (shards for shards in possible if judge(plan.memory_on_each(shards), room) != "does not fit")
    shards = next(good, possible[-1])
    needed = plan.memory_on_each(shards)
    free = max(0, room.budget - room.reserved)
    return Fit(plan.backend, room.id, needed, shards, free, room.budget, judge(needed, room))


def quantisation(header: ModelHeader) -> str:
    """How the weights are kept, as the format's own world calls it."""
    match header:
        case GgufHeader(file_type=None):
            return "unknown"
        case GgufHeader(file_type=int(number)):
            return _FILE_TYPES.get(number, f"type {number}")
        case SafetensorsHeader(quantisation=str(method)):
            return method
        case SafetensorsHeader(dtype=dtype):
            return dtype
    return "unknown"


def memory_document(plan: ReplicaPlan) -> dict[str, Any]:
    """What a plan takes, by what it is for; bytes."""
    return {
        "backend": plan.backend,
        "slots": plan.slots,
        "context_length": plan.context_length,
        **asdict(plan.memory),
        "total": plan.memory.total,
    }
