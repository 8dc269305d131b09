"""What else goes on on this machine: battery, heat, and what other programs take of GPU and CPU.

Reads the system and the driver; decides nothing. Must not know stages, or what a reading leads to.
"""

import contextlib
import os
from collections.abc import Collection, Sequence
from typing import Any

import psutil

from runtime.devices import Device
from runtime.snapshot import NodeSnapshot
from runtime.yielding import GpuReading

_RESERVE_SHARE = 10
_MOST_DEGREES = 150.0  # sensors that know no critical mark name absurd ones


class Surroundings:
    """Readings of one machine.

    Args:
        devices: those of the node.
        gpu_reserve: whether a tenth of each GPU is the machine's; not where the owner set a budget.
    """

    def __init__(self, devices: Sequence[Device], *, gpu_reserve: bool = True) -> None:
        self._gpus = [device for device in devices if device.kind == "cuda"]
        self._reserve = gpu_reserve
        self._cpu = _CpuMeter()

    def on_battery(self) -> bool:
        """Whether the machine runs on a battery."""
        battery = _sensors("battery")
        return battery is not None and battery.power_plugged is False

    def degrees_left(self) -> float | None:
        """Degrees the hottest sensor has left to its critical mark; None where none tells."""
        sensors = [sensor for group in (_sensors("temperatures") or {}).values() for sensor in group]
        known = [s for s in sensors if s.current and s.critical and 0 < s.critical < _MOST_DEGREES]
        return min((sensor.critical - sensor.current for sensor in known), default=None)

    def gpus(self, snapshot: NodeSnapshot) -> tuple[GpuReading, ...]:
        """The GPUs. One whose driver does not tell our own use from others' is left out."""
        reserved = {view.id: view.memory_reserved for view in snapshot.devices}
        pids = engine_pids(snapshot) if self._gpus else ()
        readings = []
        for gpu in self._gpus:
            use = gpu.memory_use(pids)
            own = reserved.get(gpu.id, 0)
            kept = gpu.memory_total // _RESERVE_SHARE if self._reserve else 0
            if use.ours or not own:
                readings.append(GpuReading(gpu.id, gpu.memory_total - kept - use.others, own))
        return tuple(readings)

    def cpu_others(self, snapshot: NodeSnapshot) -> float | None:
        """Share of the CPU busy with others' work since the call before; None at the first."""
        return self._cpu.others((os.getpid(), *engine_pids(snapshot)))


def _sensors(kind: str) -> Any:
    """What psutil reads of them; None where the system has none, or none that can be read."""
    with contextlib.suppress(AttributeError, OSError, ValueError, RuntimeError, psutil.Error):
        return getattr(psutil, f"sensors_{kind}")()
    return None


def engine_pids(snapshot: NodeSnapshot) -> tuple[int, ...]:
    """Every process of every engine."""
    found: list[int] = []
    for replica in snapshot.replicas:
        if replica.pid is not None:
            found.append(replica.pid)
            with contextlib.suppress(psutil.Error):
                found += [child.pid for child in psutil.Process(replica.pid).children(recursive=True)]
    return tuple(found)


class _CpuMeter:
    """CPU seconds of the machine and of our own processes, from one call to the next."""

    def __init__(self) -> None:
        self._machine: tuple[float, float] | None = None
        self._own: dict[int, float] = {}

    def others(self, own_pids: Collection[int]) -> float | None:
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        total = sum(times[:8])  # what follows repeats guests' share of the first
        own = {pid: seconds for pid in own_pids if (seconds := _seconds(pid)) is not None}
        own_spent = sum(max(0.0, seconds - self._own.get(pid, 0.0)) for pid, seconds in own.items())
        before, self._machine, self._own = self._machine, (idle, total), own
        if before is None or total <= before[1]:
            return None
        passed = total - before[1]
        busy = passed - (idle - before[0])
        return min(1.0, max(0.0, (busy - own_spent) / passed))


def _seconds(pid: int) -> float | None:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return None
    return times.user + times.system
