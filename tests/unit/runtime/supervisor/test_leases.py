"""Leases of a supervisor with real engines: who shares a load, who gets a slot, and what ends with whom."""

import asyncio
from pathlib import Path

import pytest

from models.fit import MIB
from runtime.errors import Warming
from tests.unit.runtime.supervisor.running_node import Node, hold, lease, running


async def test_one_load_however_many_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as node:

        async def use() -> str:
            async with lease(node) as held:
                assert len(node.supervisor.snapshot().replicas[0].id) > 0
                return held.replica_id

        replicas = await asyncio.gather(*(use() for _ in range(20)))
        assert node.backend.started == ["one"]
        assert len(set(replicas)) == 1
        assert node.model().state == "ready"
        assert node.supervisor.snapshot().replicas[0].running == 0


async def test_slots_bound_what_runs_and_a_cancelled_lease_gives_its_slot_back(tmp_path: Path) -> None:
    async with running(tmp_path) as node, lease(node), lease(node):
        third, fourth = (asyncio.create_task(hold(node)) for _ in range(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        third.cancel()
        with pytest.raises(asyncio.CancelledError):
            await third
        assert not fourth.done()
        view = node.supervisor.snapshot().replicas[0]
        assert view.running == 2
        fourth.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fourth
    assert node.backend.started == ["one"]


async def test_a_slot_that_comes_free_goes_to_the_organisation_that_holds_fewer(tmp_path: Path) -> None:
    order: list[str] = []

    async def use(node: Node, share: str, *, until: asyncio.Event | None = None) -> None:
        async with node.supervisor.lease("one", budget_s=30, share=share):
            order.append(share)
            if until is not None:
                await until.wait()

    first, last = asyncio.Event(), asyncio.Event()
    async with running(tmp_path) as node, asyncio.TaskGroup() as everybody:
        for until in (first, last):
            everybody.create_task(use(node, "many", until=until))
        await node.until(lambda: len(order) == 2)
        everybody.create_task(use(node, "many"))
        await node.until(lambda: node.supervisor.snapshot().replicas[0].waiting == 1)
        everybody.create_task(use(node, "few"))
        await node.until(lambda: node.supervisor.snapshot().replicas[0].waiting == 2)
        first.set()
        await node.until(lambda: len(order) == 4)
        last.set()
    assert order == ["many", "many", "few", "many"]


async def test_a_line_that_waits_gets_another_replica_where_the_owner_allows_it(tmp_path: Path) -> None:
    roomy = running(tmp_path, max_replicas=2, memory=200 * MIB)
    async with roomy as node, lease(node) as first, lease(node):
        async with lease(node) as third:
            assert third.replica_id != first.replica_id
        assert node.backend.started == ["one", "one"]


async def test_a_lease_ends_with_its_block_however_the_block_ends(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        for _ in range(5):
            with pytest.raises(ZeroDivisionError):
                await break_within(node)
        async with lease(node):
            (view,) = node.supervisor.snapshot().replicas
            assert view.running == 1
            assert view.tokens_per_second == pytest.approx(20.0)


async def break_within(node: Node) -> None:
    async with lease(node) as held:
        held.report(10, 0.5)
        raise ZeroDivisionError


async def test_a_waiter_out_of_time_is_told_the_progress_and_the_load_goes_on(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        with pytest.raises(Warming):
            async with lease(node, budget_s=0.2):
                pass
        await node.until(lambda: bool(node.engines()))
        with pytest.raises(Warming) as told:
            async with lease(node, budget_s=0.01):
                pass
        assert told.value.progress.phase == "loading"
        assert node.model().state == "warming"
        node.open_gate()
        async with lease(node):
            assert node.backend.started == ["one"]


async def test_the_last_waiter_takes_a_starting_engine_with_it(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        waiter = asyncio.create_task(hold(node))
        await node.until(lambda: node.supervisor.snapshot().replicas[:1] != () and bool(node.engines()))
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await node.until(lambda: node.supervisor.snapshot().replicas == ())
        assert node.engines() == set()
        assert node.model().state == "cold"
