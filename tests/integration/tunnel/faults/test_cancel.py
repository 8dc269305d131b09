"""Row "cancel at OPEN, HEAD, FIN": the handler stops within 1 s; ids come free; what is late is dropped."""

import asyncio

import pytest

from tunnel.errors import ResetCode, StreamReset
from tunnel.messages import Head

OK = Head(status=200, headers=())
BIG = bytes(4 * 1024 * 1024)
WITHIN_S = 1.0


class Engine:
    """A handler that goes as far as it is told, and then works until it is stopped."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.there, self.stopped = asyncio.Event(), asyncio.Event()

    async def handle(self, stream) -> None:
        try:
            await self._work(stream)
        finally:
            self.stopped.set()

    async def _work(self, stream) -> None:
        if self.moment == "OPEN":
            await self._stay()
        await stream.send_head(OK)
        if self.moment == "HEAD":
            await self._stay()
        if self.moment == "FIN of the answer":
            await stream.send(b"early", fin=True)
            await self._stay()
        if self.moment == "FIN of the question":
            while await stream.receive():
                pass
            await stream.send(b"working")
            await self._stay()
        self.there.set()
        await stream.send(BIG, fin=True)  # more than its credit: it waits inside

    async def _stay(self) -> None:
        self.there.set()
        await asyncio.Event().wait()


MOMENTS = ["OPEN", "HEAD", "DATA", "FIN of the question", "FIN of the answer"]


@pytest.mark.parametrize("moment", MOMENTS)
async def test_cancelled_at(link, request_open, moment) -> None:
    engine = Engine(moment)
    link.handler = engine.handle
    stream = await link.hub.open(request_open("cancelled"))
    if moment == "FIN of the question":
        await stream.send(b"question", fin=True)
    await engine.there.wait()
    if moment == "FIN of the answer":
        assert await stream.receive() == b"early"
        assert await stream.receive() is None
    stream.reset(ResetCode.CANCELLED, "client gone")
    async with asyncio.timeout(WITHIN_S):
        await engine.stopped.wait()
    with pytest.raises(StreamReset):
        await stream.send(b"more")
    await nothing_remains_of_it(link)
    await the_next_is_served(link, request_open, stream.id + 1)


async def test_cancelled_before_the_node_has_heard_of_it(link, request_open) -> None:
    engine = Engine("OPEN")
    link.handler = engine.handle
    stream = await link.hub.open(request_open("cancelled"))
    stream.reset(ResetCode.CANCELLED)
    await nothing_remains_of_it(link)
    assert engine.stopped.is_set() == engine.there.is_set()
    await the_next_is_served(link, request_open, stream.id + 1)


async def test_what_the_node_sent_before_it_knew_is_dropped(link, request_open) -> None:
    """The head, data and FIN of an answer are on their way when the Hub cancels."""
    sent = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(bytes(200_000), fin=True)
        sent.set()

    link.handler = handler
    streams = [await link.hub.open(request_open("cancelled")) for _ in range(8)]
    await asyncio.wait({asyncio.ensure_future(sent.wait())})
    for stream in streams:
        stream.reset(ResetCode.CANCELLED)
    await nothing_remains_of_it(link)
    await the_next_is_served(link, request_open, streams[-1].id + 1)


async def nothing_remains_of_it(link) -> None:
    """Both sides have forgotten the stream, and hold none of its bytes."""
    await link.node.idle()
    async with asyncio.timeout(WITHIN_S):
        while link.node.streams or link.hub.streams:
            await asyncio.sleep(0)
    assert not link.node._handlers
    assert link.hub._protocol._budget.reserved == link.node._protocol._budget.reserved == 0


async def the_next_is_served(link, request_open, expected_id: int) -> None:
    async def handler(stream) -> None:
        await stream.send_head(OK)
        await stream.send(b"whole", fin=True)

    link.handler = handler
    stream = await link.hub.open(request_open("next"))
    assert stream.id == expected_id
    await stream.send(b"", fin=True)
    assert await stream.receive() == b"whole"
    assert link.hub.close_reason is None
    assert link.node.close_reason is None
