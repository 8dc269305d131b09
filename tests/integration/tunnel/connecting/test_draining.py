"""A Hub or a node that leaves: no stream is truncated, and the node has moved on where it can."""

import asyncio

from tests.integration.tunnel.connecting.dialling import Recorded
from tunnel.messages import Head


async def test_a_hub_that_drains_truncates_no_stream(new_hub, new_node, request_open) -> None:
    hub_side = new_hub()
    await hub_side.server.start("127.0.0.1", 0)
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        began.set()
        await release.wait()
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await began.wait()
    closing = asyncio.create_task(hub_side.server.close(drain_s=20))
    await node.client.session.leave_asked.wait()
    assert not closing.done()
    release.set()
    assert await stream.receive() == b"whole"
    await closing
    assert session.close_reason == "going away"
    await node.stop()


async def test_a_node_moves_to_another_hub_before_the_first_closes(new_hub, new_node, request_open) -> None:
    """Two Hubs with the same nodes; the first drains with a stream under way."""
    first, second = new_hub(least_smear_s=0.0), new_hub()
    second.accounts = second.server._gate.authenticator = first.accounts
    for side in (first, second):
        await side.server.start("127.0.0.1", 0)
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        began.set()
        if stream.open.uid == "slow":
            await release.wait()
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(first.url, first.know(), more=(second.url,), backoff=Recorded())
    node.handler = handler
    node.start()
    old = await first.sessions.get()
    slow = await old.open(request_open("slow"))
    await slow.send(b"", fin=True)
    await began.wait()
    closing = asyncio.create_task(first.server.close(drain_s=20))
    new = await second.sessions.get()
    assert old.close_reason is None, "the replacement stands before the first session ends"
    assert (old.generation, new.generation) == (1, 2)
    while not old.draining:
        await asyncio.sleep(0)
    fresh = await new.open(request_open("fresh"))
    await fresh.send(b"", fin=True)
    assert await fresh.receive() == b"whole"
    release.set()
    assert await slow.receive() == b"whole"
    await closing
    states = [node.states.get_nowait() for _ in range(node.states.qsize())]
    assert states == ["connecting", "connected", "connecting", "connected"]
    await node.stop()
    await second.server.close()


async def test_a_draining_hub_answers_through_a_node_that_has_nowhere_to_go(
    new_hub, new_node, request_open
) -> None:
    hub_side = new_hub(least_smear_s=0.0)
    await hub_side.server.start("127.0.0.1", 0)

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    await hub_side.server.drain(20)
    await node.reach("connected")
    await node.reach("waiting")  # it dialled, and nobody listens there any more
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    assert await stream.receive() == b"whole"
    await hub_side.server.close()
    await node.stop()


async def test_a_node_that_stops_lets_its_streams_finish(hub_side, new_node, request_open) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        began.set()
        await release.wait()
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await began.wait()
    stopping = asyncio.create_task(node.client.stop(drain_s=20))
    while not session.draining:
        await asyncio.sleep(0)
    release.set()
    assert await stream.receive() == b"whole"
    await stopping
    await node.stop()
