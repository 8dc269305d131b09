"""When a node was last seen, as storage has it: from the moment it connects to the moment it leaves."""

import asyncio

import pytest

from hub.storage.repositories import Storage

LONG_AGO = 1.0


@pytest.fixture
async def node(bench):
    return await bench.node(await bench.organisation())


async def test_a_node_that_connects_is_seen(bench, node):
    stored = await bench.hub.storage.nodes.get(node.node_id)
    assert stored.last_seen_at >= stored.created_at


async def test_a_node_that_leaves_is_seen_then(bench, node):
    nodes = bench.hub.storage.nodes
    await nodes.mark_seen([node.node_id], now=LONG_AGO)
    await node.client.stop()
    async with asyncio.timeout(10):
        while (await nodes.get(node.node_id)).last_seen_at == LONG_AGO:
            await asyncio.sleep(0.01)


async def test_nodes_that_the_end_of_the_hub_sends_away_are_seen_then(config, script):
    async with script.bench_on(config) as bench:
        node = await bench.node(await bench.organisation())
        await bench.hub.storage.nodes.mark_seen([node.node_id], now=LONG_AGO)
        bench.nodes.clear()  # it stays until the Hub itself ends
        stopping, bench.tasks = bench.tasks, []
    await node.client.stop()
    await asyncio.gather(*stopping)
    async with await Storage.open(config.database) as storage:
        assert (await storage.nodes.get(node.node_id)).last_seen_at > LONG_AGO
