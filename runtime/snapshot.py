"""An immutable picture of the node: everything a status report needs, taken at one moment.

The composition root turns it into the wire's messages; this module must not know the tunnel.
"""

from dataclasses import dataclass
from typing import Literal

from runtime.progress import Phase

DeviceKind = Literal["cpu", "cuda", "metal"]
ModelState = Literal["cold", "warming", "ready"]


@dataclass(frozen=True, slots=True)
class DeviceView:
    """One device's memory in bytes. `held` is what a stopped engine has not given back; never promised."""

    id: str
    kind: DeviceKind
    name: str
    memory_total: int
    memory_used_by_others: int
    memory_budget: int
    memory_reserved: int
    memory_held: int = 0
    held_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica: its state (see `runtime.replica`), requests running and waiting, and its own speed.

    `measured_bytes` is the most it was seen to take of its devices together, 0 where that is not known.
    """

    id: str
    model: str
    state: str
    slots: int
    running: int
    waiting: int
    tokens_per_second: float
    phase: Phase
    progress: float | None
    device: str
    reserved_bytes: int
    pid: int | None
    measured_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelView:
    """One model this node offers. `digest` is the sha256 of its weights, where known.

    Where an endpoint of the owner's serves it, that is `external:` and its name: its weights are not known.

    `fits` says that the node may be asked for it: an engine for it is here, and it would fit a device.
    """

    model: str
    digest: str | None
    size_bytes: int
    on_disk: bool
    state: ModelState
    fits: bool
    context_length: int
    capabilities: tuple[str, ...]
    phase: Phase
    done_bytes: int
    total_bytes: int | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class NodeSnapshot:
    """The whole node. `accepting` is False while it stops or cannot serve anything; `reason` says why."""

    accepting: bool
    reason: str | None
    devices: tuple[DeviceView, ...]
    replicas: tuple[ReplicaView, ...]
    models: tuple[ModelView, ...]
