"""The async shell around the scheduler: one task owns its state, slow work runs in child tasks.

Must not know the tunnel, the Hub or HTTP frameworks.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from models.catalog import Catalog
from models.store import ModelStore
from runtime.backends.base import Backend, Endpoint, EngineOptions
from runtime.devices import Device
from runtime.progress import LoadProgress
from runtime.snapshot import DeviceView, ModelView, NodeSnapshot, ReplicaView

__all__ = [
    "DeviceView",
    "Lease",
    "ModelView",
    "NodeSnapshot",
    "ReplicaView",
    "Supervisor",
    "SupervisorSettings",
]


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    """What the owner decides.

    Attributes:
        state_dir: logs of the engines and the marker by which strays are found.
        offered: ids of the models to offer; None offers all of the catalog.
        idle_ttl_s: seconds a replica may be idle before it is unloaded.
        ram_budget_bytes: most memory engines may take on the CPU; None leaves a tenth of it to the machine.
        vram_budget_bytes: the same for each GPU.
        waiting_per_model: requests that may wait for one model's load or slots.
        engine: options given to every engine.
    """

    state_dir: Path
    offered: tuple[str, ...] | None = None
    idle_ttl_s: float = 600.0
    ram_budget_bytes: int | None = None
    vram_budget_bytes: int | None = None
    waiting_per_model: int = 128
    engine: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send ONE request to one replica; it ends with the `async with` block."""

    replica_id: str
    model_id: str
    model_digest: str
    endpoint: Endpoint
    report: Callable[[int, float], None]
    """Tell the completion tokens of the request and the seconds it took, for `tokens_per_second`."""


class Supervisor:
    """Loads, serves and unloads models; see `runtime/DESIGN.md`."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        store: ModelStore,
        backends: Sequence[Backend],
        devices: Sequence[Device],
        settings: SupervisorSettings,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._store = store
        self._backends = tuple(backends)
        self._devices = tuple(devices)
        self._settings = settings
        self._on_change = on_change

    async def run(self) -> None:
        """Own the state until cancelled or stopped."""

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """End every engine, verified; waits up to `drain_s` seconds for requests that are being answered."""

    @asynccontextmanager
    async def lease(
        self, model_id: str, *, budget_s: float, on_progress: Callable[[LoadProgress], None] | None = None
    ) -> AsyncIterator[Lease]:
        """Make the model ready, wait for a slot, and hold it for the length of the block.

        Args:
            model_id: catalog id.
            budget_s: seconds to wait for load and slot together.
            on_progress: called as the load goes on.

        Raises:
            ModelUnknown, ModelDoesNotFit, EngineUnavailable, Warming, Overloaded, LoadFailed, NodeStopping
        """
        raise NotImplementedError
        yield

    def snapshot(self) -> NodeSnapshot:
        """The node as it is now. Cheap and synchronous."""
        raise NotImplementedError

    async def load(self, model_id: str, *, on_progress: Callable[[LoadProgress], None] | None = None) -> None:
        """Make the model ready and keep it for `idle_ttl_s`; returns when it is. Raises as `lease`."""

    async def unload(self, model_id: str) -> None:
        """Drain and stop the model's replicas; returns once their memory is back (or known not to be)."""

    async def pull(self, model_id: str, *, on_progress: Callable[[LoadProgress], None] | None = None) -> None:
        """Bring the model's weights onto the disk without loading them."""

    def report_engine_failure(self, replica_id: str) -> None:
        """The relay saw the engine's connection die: look whether the process lives."""
