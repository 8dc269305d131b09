"""The devices of this machine and how much of their memory others use.

Reads the operating system and the GPU driver; decides nothing. Must not know models or replicas.
"""

import contextlib
import importlib.util
import logging
import math
import os
import platform
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psutil

from runtime.snapshot import DeviceKind

logger = logging.getLogger(__name__)

_CGROUPS = Path("/sys/fs/cgroup")
_DRIVER = Path("/proc/driver/nvidia/version")
_NO_LIMIT = 1 << 60  # version 1 writes a huge number where version 2 writes `max`


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


class CpuDevice:
    """The machine's memory, or this cgroup's share of it."""

    id = "cpu"
    kind: DeviceKind = "cpu"

    def __init__(self) -> None:
        self.name = _processor_name()
        self._cgroup = _MemoryCgroup.find()
        physical = psutil.virtual_memory().total
        self.memory_total = min(physical, self._cgroup.limit) if self._cgroup else physical

    def memory_use(self, own_pids: Collection[int]) -> MemoryUse:
        """Bytes in use now: `ours` is each process's private memory, and the most that one of them shares.

        For one process that is its resident memory (RSS), with the weights it has mapped: two replicas of a
        model each count them, as each of their estimates does, and neither looks smaller (as PSS would make
        it) because of a neighbour that may go tomorrow. In a tree the libraries and the memory that processes
        share count once, where a sum of RSS would count them for each. It is read from one line in `/proc`:
        exact figures (PSS, USS) walk the page tables and hold the engine up.

        The kernel counts the pages of mapped files as reclaimable, so only private memory is taken off what
        is used, or `others` would come out too small.
        """
        private = shared = 0
        for pid in own_pids:
            with contextlib.suppress(psutil.Error):
                info = psutil.Process(pid).memory_info()
                mapped = getattr(info, "shared", 0)
                private += info.rss - mapped
                shared = max(shared, mapped)
        return MemoryUse(others=max(0, self._in_use() - private), ours=private + shared)

    def _in_use(self) -> int:
        memory = psutil.virtual_memory()
        machine_wide = memory.total - memory.available
        if self._cgroup is None:
            return machine_wide
        # What the cgroup may still take is also bounded by what the whole machine has left.
        return max(self._cgroup.in_use(), self.memory_total - memory.available)


@dataclass(frozen=True, slots=True)
class _MemoryCgroup:
    """The tightest memory limit above this process, versions 1 and 2."""

    limit: int
    usage_file: Path
    stat_file: Path
    cache_key: str

    @classmethod
    def find(cls) -> "_MemoryCgroup | None":
        found = [group for group in cls._candidates() if group.limit < psutil.virtual_memory().total]
        return min(found, key=lambda group: group.limit, default=None)

    @classmethod
    def _candidates(cls) -> Iterator["_MemoryCgroup"]:
        for folder in _own_cgroups("memory"):
            for limit, usage, key in (
                ("memory.max", "memory.current", "inactive_file"),
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            ):
                value = _read_number(folder / limit)
                if value is not None and value < _NO_LIMIT:
                    yield cls(value, folder / usage, folder / "memory.stat", key)

    def in_use(self) -> int:
        """Bytes charged to the group, less file pages that the kernel would drop first."""
        cache = 0
        with contextlib.suppress(OSError, ValueError):
            lines = (line.split() for line in self.stat_file.read_text("ascii").splitlines())
            cache = next((int(number) for name, number in lines if name == self.cache_key), 0)
        return max(0, (_read_number(self.usage_file) or 0) - cache)


def _own_cgroups(controller: str) -> Iterator[Path]:
    """This process's cgroup folder and its parents; inside a container only the root may be there."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("ascii").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            base = _CGROUPS / controllers if controllers else _CGROUPS
            folder = base / path.lstrip("/")
            yield from (f for f in (folder, *folder.parents) if f.is_relative_to(base) and f.is_dir())


def _read_number(path: Path) -> int | None:
    try:
        return int(path.read_text("ascii"))
    except (OSError, ValueError):
        return None


class CudaDevice:
    """One NVIDIA GPU, read through the driver's own library."""

    kind: DeviceKind = "cuda"

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml = nvml
        self._handle = handle
        self.id = _text(nvml.nvmlDeviceGetUUID(handle))
        self.name = _text(nvml.nvmlDeviceGetName(handle))
        self.memory_total = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)

    def memory_use(self, own_pids: Collection[int]) -> MemoryUse:
        """Bytes in use now, by process id as the driver sees it; tried on a simulated driver only.

        A driver that fails, as one that was upgraded under the node, leaves nothing to plan with: all of the
        device counts as used by others.
        """
        try:
            used = int(self._nvml.nvmlDeviceGetMemoryInfo(self._handle).used)
            processes = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        except self._nvml.NVMLError as error:
            fields = {"event": "nvml_failed", "device": self.id, "reason": str(error)}
            logger.warning("the GPU's driver does not answer: nothing is planned on it", extra=fields)
            return MemoryUse(others=self.memory_total, ours=0)
        # The driver gives None where it may not tell, as inside some containers.
        ours = sum(int(p.usedGpuMemory or 0) for p in processes if p.pid in own_pids)
        return MemoryUse(others=max(0, used - ours), ours=ours)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def detect() -> tuple[Device, ...]:
    """Every device of this machine, the CPU's memory last."""
    return (*_cuda_devices(), CpuDevice())


def unseen_driver() -> str | None:
    """Where an NVIDIA driver is that cannot be asked, since its library's binding is not installed."""
    if _DRIVER.exists() and importlib.util.find_spec("pynvml") is None:
        return str(_DRIVER)
    return None


def _cuda_devices() -> list[CudaDevice]:
    try:
        import pynvml  # noqa: PLC0415 - a machine without a GPU should not pay for it, nor need it
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [CudaDevice(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)]
    except pynvml.NVMLError as error:
        logger.debug("no NVIDIA driver", extra={"event": "nvml_absent", "reason": str(error)})
        return []


def usable_threads() -> int:
    """CPU threads worth giving an engine: physical cores, within this process's affinity and quota.

    Two threads on one core's hyperthreads only slow token generation, which waits for memory.
    """
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    return max(1, min(cores, allowed, _cpu_quota()))


def engine_threads() -> int:
    """CPU threads of an engine where the owner sets none: one core is left to everything else.

    An engine's threads wait for the slowest of them at every layer: one that shares its core with a busy
    neighbour makes all of them slow, by ten times and more, where one thread fewer costs its share alone.
    """
    return max(1, usable_threads() - 1)


def _cpu_quota() -> int:
    """Whole CPUs the cgroup allows, rounded up; a large number where it sets no limit."""
    quotas = [os.cpu_count() or 1]
    for folder in _own_cgroups("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            quotas.append(math.ceil(int(quota) / int(period)))
        quota_us, period_us = (_read_number(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota_us is not None and quota_us > 0 and period_us:
            quotas.append(math.ceil(quota_us / period_us))
    return min(quotas)


def _processor_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
