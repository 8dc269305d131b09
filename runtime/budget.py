"""What this node may take of each device: the owner's budget against what others use, measured.

Owns the arithmetic between a device's reading and what placement may plan with; must not know replicas.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from runtime.devices import Device
from runtime.placement import Capacity
from runtime.snapshot import DeviceKind

_RESERVE_SHARE = 10  # a tenth of the device stays with the machine where the owner set no budget


@dataclass(frozen=True, slots=True)
class DeviceReading:
    """One device at one moment, in bytes. `budget` is what all replicas together may take."""

    id: str
    kind: DeviceKind
    name: str
    memory_total: int
    used_by_others: int
    budget: int

    @property
    def capacity(self) -> Capacity:
        """The reading as placement wants it."""
        return Capacity(self.id, self.kind, self.budget)


class Budgets:
    """Reads the devices; `ram` and `vram` are the owner's budgets in bytes, None where none was set."""

    def __init__(self, devices: Sequence[Device], *, ram: int | None = None, vram: int | None = None) -> None:
        self._devices = {device.id: device for device in devices}
        self._ram = ram
        self._vram = vram

    def read(self, own_pids: Collection[int]) -> tuple[DeviceReading, ...]:
        """Every device now. Asks the system and the driver: call it in a thread."""
        return tuple(self._read(device, own_pids) for device in self._devices.values())

    def used_by(self, devices: Sequence[str], pids: Collection[int]) -> int:
        """The most that these processes hold of any of the devices now, in bytes. Blocks like `read`."""
        return max(self._devices[device_id].memory_use(pids).ours for device_id in devices)

    def _read(self, device: Device, own_pids: Collection[int]) -> DeviceReading:
        others = device.memory_use(own_pids).others
        set_by_owner = self._ram if device.kind == "cpu" else self._vram
        free_for_us = device.memory_total - others
        if set_by_owner is None:
            budget = free_for_us - device.memory_total // _RESERVE_SHARE
        else:
            budget = min(set_by_owner, free_for_us)
        return DeviceReading(device.id, device.kind, device.name, device.memory_total, others, max(0, budget))
