"""Memory: who makes room and who is unloaded, and what engines really take, counted and remembered."""

import asyncio
from pathlib import Path

import pytest

from models.fit import MIB
from runtime.errors import ModelDoesNotFit, Warming
from runtime.snapshot import ReplicaView
from tests.unit.runtime.supervisor.running_node import Node, lease, running


async def test_an_idle_model_makes_room_for_another_and_a_busy_one_does_not(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node, "one"):
            with pytest.raises(Warming) as told:
                async with lease(node, "two", budget_s=0.2):
                    pass
            assert told.value.progress.phase == "queued"
        async with lease(node, "two"):
            assert node.model("one").state == "cold"
        assert len(await asyncio.to_thread(node.engines)) == 1


async def test_an_idle_model_is_unloaded(tmp_path: Path) -> None:
    async with running(tmp_path, idle_ttl_s=0.05) as node:
        await node.supervisor.load("one")
        await node.until(lambda: node.supervisor.snapshot().replicas == ())
        assert node.model().on_disk


async def test_unload_waits_for_what_is_being_answered(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node):
            unloading = asyncio.create_task(node.supervisor.unload("one"))
            await node.until(lambda: node.supervisor.snapshot().replicas[0].state == "draining")
            assert not unloading.done()
        await unloading
        assert node.supervisor.snapshot().replicas == ()
        assert node.engines() == set()


def replica(node: Node) -> ReplicaView | None:
    return next(iter(node.supervisor.snapshot().replicas), None)


async def test_what_an_engine_takes_counts_at_once_and_is_reserved_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.supervisor._WATCH_EVERY_S", 0.02)
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.until(lambda: bool((view := replica(node)) and view.measured_bytes > 0))
        view, device = replica(node), node.supervisor.snapshot().devices[0]
        assert view is not None
        assert view.reserved_bytes == MIB < view.measured_bytes
        assert device.memory_reserved >= view.measured_bytes
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        after = replica(node)
        assert after is not None
        assert after.reserved_bytes >= view.measured_bytes


async def test_a_replica_that_goes_before_it_was_looked_at_is_measured_at_its_end(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.supervisor.unload("one")
        await node.supervisor.load("one")
        view = replica(node)
        assert view is not None
        assert view.reserved_bytes > 4 * MIB


async def test_an_engine_that_takes_what_is_not_there_has_the_next_model_refused(tmp_path: Path) -> None:
    """Known to take more than the machine has, it is not started again, and the reason has the numbers."""
    async with running(tmp_path, ram_budget_bytes=4 * MIB) as node:
        node.backend.estimated = MIB
        await node.supervisor.load("one")
        await node.supervisor.unload("one")
        with pytest.raises(ModelDoesNotFit, match=r"it needs .* MB and at most 4 MB can be had"):
            await node.supervisor.load("one")
        assert not node.model().fits
