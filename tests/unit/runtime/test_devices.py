"""Devices as this machine has them, as a container limits them, and what the owner lets engines take."""

import os
import sys
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from runtime import devices
from runtime.budget import Budgets
from runtime.devices import (
    CpuDevice,
    CudaDevice,
    MemoryUse,
    detect,
    engine_threads,
    unseen_driver,
    usable_threads,
)
from runtime.snapshot import DeviceKind

GIB = 1024**3


def test_every_machine_has_a_cpu() -> None:
    cpu = detect()[-1]
    assert (cpu.id, cpu.kind) == ("cpu", "cpu")
    assert 0 < cpu.memory_total <= psutil.virtual_memory().total
    assert cpu.name
    use = cpu.memory_use([os.getpid()])
    assert use.ours > 0
    assert 0 <= use.others < cpu.memory_total
    assert 1 <= usable_threads() <= (os.cpu_count() or 1)


def test_a_process_that_has_ended_holds_nothing() -> None:
    assert CpuDevice().memory_use([2**22 - 1]).ours == 0


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_is_the_machines_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    if version == 2:
        files = {"memory.max": 2 * GIB, "memory.current": GIB, "memory.stat": f"inactive_file {GIB // 4}"}
    else:
        files = {
            "memory.limit_in_bytes": 2 * GIB,
            "memory.usage_in_bytes": GIB,
            "memory.stat": f"total_inactive_file {GIB // 4}",
        }
    for name, value in files.items():
        (tmp_path / name).write_text(f"{value}\n")
    monkeypatch.setattr(devices, "_own_cgroups", lambda _controller: [tmp_path])
    cpu = CpuDevice()
    assert cpu.memory_total == min(2 * GIB, psutil.virtual_memory().total)
    assert cpu.memory_use([]).others >= GIB - GIB // 4


def test_a_container_without_a_limit_has_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    (tmp_path / "cpu.max").write_text("max 100000\n")
    monkeypatch.setattr(devices, "_own_cgroups", lambda _controller: [tmp_path])
    assert CpuDevice().memory_total == psutil.virtual_memory().total
    assert usable_threads() >= 1


def test_a_cpu_quota_bounds_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "_own_cgroups", lambda _controller: [tmp_path])
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_threads() == 1
    assert engine_threads() == 1


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_an_engine_leaves_a_core_to_its_neighbours(
    monkeypatch: pytest.MonkeyPatch, cores: int, threads: int
) -> None:
    monkeypatch.setattr("runtime.devices.usable_threads", lambda: cores)
    assert engine_threads() == threads


class FakeNvml:
    class NVMLError(Exception):
        pass

    """The driver's library on a machine with one GPU, two processes of ours and one of another's."""

    def nvmlDeviceGetUUID(self, handle: object) -> str:  # noqa: N802
        return "GPU-1"

    def nvmlDeviceGetName(self, handle: object) -> bytes:  # noqa: N802
        return b"A GPU"

    def nvmlDeviceGetMemoryInfo(self, handle: object) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=80, used=50)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:  # noqa: N802
        return [
            SimpleNamespace(pid=1, usedGpuMemory=20),
            SimpleNamespace(pid=2, usedGpuMemory=None),
            SimpleNamespace(pid=3, usedGpuMemory=25),
        ]


def test_a_gpu_tells_ours_from_others() -> None:
    gpu = CudaDevice(FakeNvml(), object())
    assert (gpu.id, gpu.name, gpu.memory_total) == ("GPU-1", "A GPU", 80)
    assert gpu.memory_use({1, 2}) == MemoryUse(others=30, ours=20)


def test_without_the_drivers_binding_there_is_the_cpu_and_a_hint_where_a_driver_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what an import finds that is not installed
    assert [device.kind for device in detect()] == ["cpu"]
    driver = tmp_path / "version"
    monkeypatch.setattr("runtime.devices._DRIVER", driver)
    assert unseen_driver() is None
    driver.touch()
    assert unseen_driver() == str(driver)


class FixedDevice:
    id = "d"
    name = "device"
    memory_total = 100

    def __init__(self, kind: DeviceKind, others: int) -> None:
        self.kind = kind
        self._others = others

    def memory_use(self, own_pids: Collection[int]) -> MemoryUse:
        return MemoryUse(others=self._others, ours=0)


@pytest.mark.parametrize(
    ("kind", "others", "ram", "vram", "budget"),
    [
        ("cpu", 20, None, None, 70),  # a tenth stays with the machine
        ("cpu", 20, 50, None, 50),
        ("cpu", 60, 50, None, 40),  # others have taken part of what the owner allowed
        ("cpu", 99, None, None, 0),
        ("cuda", 20, 50, None, 70),
        ("cuda", 20, 50, 30, 30),
    ],
)
def test_the_budget_is_the_owners_within_what_others_leave(
    kind: DeviceKind, others: int, ram: int | None, vram: int | None, budget: int
) -> None:
    (reading,) = Budgets([FixedDevice(kind, others)], ram=ram, vram=vram).read([])
    assert reading.budget == budget
    assert reading.capacity.budget == budget


def test_a_driver_that_fails_leaves_nothing_to_plan_with() -> None:
    class Broken(FakeNvml):
        def nvmlDeviceGetComputeRunningProcesses(self, handle: object) -> list[SimpleNamespace]:  # noqa: N802
            raise self.NVMLError("Driver/library version mismatch")

    device = CudaDevice(Broken(), object())
    assert device.memory_use({1}) == MemoryUse(others=device.memory_total, ours=0)
