"""The end of a supervisor: drained for a while, then cut, and no engine left."""

import asyncio
from pathlib import Path

import pytest

from runtime.errors import NodeStopping
from tests.unit.runtime.supervisor.running_node import Node, hold, lease


async def test_stop_drains_for_a_while_and_then_cuts(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.open_gate()
    task = asyncio.create_task(node.supervisor.run())
    async with lease(node):
        stopping = asyncio.create_task(node.supervisor.stop(drain_s=30))
        await node.until(lambda: not node.supervisor.snapshot().accepting)
        with pytest.raises(NodeStopping):
            await hold(node)
        assert not stopping.done()
        assert len(await asyncio.to_thread(node.engines)) == 1
    await asyncio.gather(stopping, task)
    assert node.engines() == set()
    with pytest.raises(NodeStopping):
        await hold(node)


async def test_cancelling_it_leaves_no_engine(tmp_path: Path) -> None:
    node = Node(tmp_path)
    task = asyncio.create_task(node.supervisor.run())
    waiter = asyncio.create_task(hold(node))
    await node.until(lambda: bool(node.engines()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(NodeStopping):
        await waiter
    assert node.engines() == set()
