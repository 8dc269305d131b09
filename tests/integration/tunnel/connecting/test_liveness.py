"""A peer that is silent is found; one that is idle is not taken for dead."""

import asyncio

from tests.integration.tunnel.connecting.dialling import challenged, dial, hello_for
from tunnel.handshake import signed_hello


async def test_a_silent_peer_is_found_and_nothing_leaks(new_hub, new_node) -> None:
    """A node whose process is frozen: the socket stays open, no frame comes."""
    before = asyncio.all_tasks()
    hub_side = new_hub(heartbeat_s=0.06)  # dead after 0.16 s of silence
    await hub_side.server.start("127.0.0.1", 0)
    identity = hub_side.know()
    connection = await dial(hub_side)
    await connection.send(signed_hello(hello_for(hub_side), await challenged(connection), identity))
    session = await hub_side.sessions.get()
    assert await hub_side.closed.get() is session
    assert session.close_reason == "silent"
    await connection.close()
    await hub_side.server.close()
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}


async def test_heartbeats_keep_an_idle_session(new_hub, new_node) -> None:
    hub_side = new_hub(heartbeat_s=0.1)
    await hub_side.server.start("127.0.0.1", 0)
    node = new_node(hub_side.url, hub_side.know())
    node.start()
    session = await hub_side.sessions.get()
    began = heard = session._protocol.liveness.heard
    while heard < began + 0.5:
        await asyncio.sleep(0.02)
        heard = session._protocol.liveness.heard
        assert session.close_reason is None
    await node.stop()
    await hub_side.server.close()
