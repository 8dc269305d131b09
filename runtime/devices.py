"""The devices of this machine and how much of their memory others use.

Reads the operating system and the GPU driver; decides nothing. Must not know models or replicas.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.snapshot import DeviceKind


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """Bytes in use on one device: by processes that are not ours, and by those named as ours."""

    others: int
    ours: int


class Device(Protocol):
    """One memory pool an engine can be placed on."""

    @property
    def id(self) -> str:
        """Stable id on this machine: `cpu`, or the GPU's UUID."""

    @property
    def kind(self) -> DeviceKind:
        """What it is."""

    @property
    def name(self) -> str:
        """The product's name, for people."""

    @property
    def memory_total(self) -> int:
        """Bytes, within this process's cgroup where that has a limit."""

    def memory_use(self, own_pids: Collection[int]) -> MemoryUse:
        """Bytes in use now; `own_pids` are the engine processes of this node."""


def detect() -> Sequence[Device]:
    """Every device of this machine, the CPU's memory last."""
    return ()
