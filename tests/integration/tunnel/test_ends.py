"""How a session ends, the same over memory and a real websocket: lost, asked to leave, drained, closed."""

import asyncio

import pytest

from tunnel.errors import ResetCode, SessionClosed, SessionDraining, StreamReset
from tunnel.messages import Command, Head

OK = Head(status=200, headers=(("content-type", "text/event-stream"),))
MUCH = bytes(8 * 1024 * 1024)  # more than the windows take


async def test_a_lost_session_fails_every_stream_and_cancels_every_handler(link, request_open) -> None:
    began: asyncio.Queue[None] = asyncio.Queue()
    cancelled: asyncio.Queue[None] = asyncio.Queue()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(b"some")
        began.put_nowait(None)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.put_nowait(None)

    link.handler = handler
    streams = [await link.hub.open(request_open(str(number))) for number in range(3)]
    for stream in streams:
        await began.get()
        assert await stream.receive() == b"some"
    blocked = asyncio.create_task(streams[0].send(MUCH))
    await link.break_line()
    await link.hub.closed.wait()
    for stream in streams:
        await cancelled.get()
        with pytest.raises(StreamReset) as caught:
            await stream.receive()
        assert caught.value.code is ResetCode.SESSION_LOST
    with pytest.raises(StreamReset):
        await blocked
    with pytest.raises(SessionClosed):
        await link.hub.open(request_open())
    with pytest.raises(SessionClosed):
        await link.hub.command(Command(job="j", action="load", model="m"))


async def test_goaway_of_the_hub_asks_and_the_node_answers_until_it_leaves(link, request_open) -> None:
    release = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await release.wait()
        await stream.send(b"whole", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"", fin=True)
    await stream.head()
    await link.hub.goaway("update", reconnect_in=30.0, deadline=30.0)
    await link.node.leave_asked.wait()
    assert link.node.goaway_received.reconnect_in == 30.0
    assert not link.hub.draining
    another = await link.hub.open(request_open())
    await another.send(b"", fin=True)
    await another.head()
    link.node.leave("replaced", 30.0)
    while not link.hub.draining:
        await asyncio.sleep(0)
    with pytest.raises(SessionDraining):
        await link.hub.open(request_open())
    release.set()
    for each in (stream, another):
        assert [await each.receive(), await each.receive()] == [b"whole", None]
    await link.hub.closed.wait()
    await link.node.closed.wait()
    assert link.node.close_reason == "drained"


async def test_goaway_ends_at_its_deadline(link, request_open) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        await asyncio.Event().wait()

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.head()
    await link.hub.goaway("update", reconnect_in=30.0, deadline=0.05)
    with pytest.raises(StreamReset) as caught:
        await stream.receive()
    assert caught.value.code is ResetCode.SESSION_LOST
    await link.hub.closed.wait()


async def test_a_draining_node_refuses_and_finishes(link, request_open) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        began.set()
        await release.wait()
        await stream.send_head(OK)
        await stream.send(b"whole", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open())
    await stream.send(b"", fin=True)
    await began.wait()
    draining = asyncio.create_task(link.node.drain("update", 30.0))
    await asyncio.sleep(0)
    late = await link.hub.open(request_open())  # the Hub has not heard yet
    with pytest.raises(StreamReset) as caught:
        await late.head()
    assert caught.value.code is ResetCode.REFUSED
    assert link.hub.draining
    release.set()
    assert [await stream.receive(), await stream.receive()] == [b"whole", None]
    await draining
    await link.hub.closed.wait()


async def test_close_says_why(link) -> None:
    await link.hub.close("superseded")
    await link.node.closed.wait()
    assert link.node.close_reason == "superseded"
    await link.hub.close("again")
    assert link.hub.close_reason == "superseded"
