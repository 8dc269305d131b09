"""Silence, junk and crowds: what they cost whoever sends them, and nobody else."""

import contextlib
import select
import socket

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.tunnel.connecting.dialling import Recorded, challenged, closing_code, dial, hello_for
from tunnel.frames import FrameType, encode
from tunnel.handshake import signed_hello


async def test_silence_before_authentication_ends_it(hub_side) -> None:
    hub_side.know()
    connection = await dial(hub_side)
    assert await closing_code(connection) == 1008


@pytest.mark.parametrize(
    "junk", [b"\x00" * 12, bytes(5000), b"x", encode(FrameType.PING, 0, bytes(16)), "text"]
)
async def test_junk_before_authentication_ends_it(hub_side, junk) -> None:
    hub_side.know()
    connection = await dial(hub_side)
    await challenged(connection)
    await connection.send(junk)
    assert await closing_code(connection) == 1002


async def test_junk_after_authentication_ends_that_session_only(hub_side, new_node) -> None:
    good = new_node(hub_side.url, hub_side.know("node_b"))
    good.start()
    other = await hub_side.sessions.get()
    identity = hub_side.know()
    connection = await dial(hub_side)
    await connection.send(signed_hello(hello_for(hub_side), await challenged(connection), identity))
    session = await hub_side.sessions.get()
    await connection.send(encode(FrameType.DATA, 5, b"x"))
    assert await closing_code(connection) == 1002
    assert await hub_side.closed.get() is session
    assert other.close_reason is None
    await good.stop()


async def test_too_many_handshakes_are_told_when_to_come_back(new_hub, new_node) -> None:
    hub_side = new_hub(handshakes_per_s=0.0, handshake_burst=0, retry_after_s=7.0)
    await hub_side.server.start("127.0.0.1", 0)
    hub_side.know()
    with pytest.raises(InvalidStatus) as caught:
        await dial(hub_side)
    assert caught.value.response.status_code == 503
    assert 7 <= int(caught.value.response.headers["Retry-After"]) <= 14
    backoff = Recorded()
    node = new_node(hub_side.url, hub_side.know(), backoff=backoff)
    node.start()
    kind, retry_after = await backoff.asked.get()
    assert kind == "failed"
    assert 7 <= retry_after <= 14
    await node.stop()
    await hub_side.server.close()


async def test_too_many_unfinished_handshakes_from_one_address(new_hub) -> None:
    hub_side = new_hub(handshakes_per_address=1)
    await hub_side.server.start("127.0.0.1", 0)
    hub_side.know()
    first = await dial(hub_side)
    await challenged(first)
    with pytest.raises(InvalidStatus) as caught:
        await dial(hub_side)
    assert caught.value.response.status_code == 429
    await first.close()
    await hub_side.server.close()


async def test_many_nodes_may_knock_at_the_same_moment(new_hub) -> None:
    hub = new_hub()
    await hub.server.start_on(socket.create_server(("127.0.0.1", 0)))
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for _ in range(300):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(("127.0.0.1", hub.server.port))  # it is our turn: nobody accepts meanwhile
            poll.register(knocking, select.POLLOUT)
        assert len(poll.poll(1000)) == 300
    await hub.server.close()
