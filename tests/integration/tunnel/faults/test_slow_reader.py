"""Row "one slow reader": neighbours go on as before, and memory stays within the window."""

import asyncio
import logging
from itertools import chain, pairwise
from statistics import quantiles

import pytest

from tunnel.flow import INITIAL_WINDOW, REQUEST_WINDOW_LIMIT
from tunnel.messages import Head

BIG = bytes(8 * 1024 * 1024)
OK = Head(status=200, headers=())
TOKENS = 100
PACE_S = 0.005
GROWTH_S = 0.05  # of the median: who had to wait for the slow one would wait for ever
logger = logging.getLogger(__name__)


@pytest.fixture
async def tunnel(start_hub, start_node):
    """A Hub's session with a node that streams tokens, sends much, or reads nothing, as it is asked."""
    release = asyncio.Event()

    async def handler(stream) -> None:
        if stream.open.uid == "reads nothing":
            await release.wait()
        await stream.send_head(OK)
        if stream.open.uid == "sends much":
            await stream.send(BIG, fin=True)
            return
        for _ in range(TOKENS):
            await asyncio.sleep(PACE_S)
            await stream.send(b"data: token\n\n")
        await stream.send(b"", fin=True)

    hub_side = await start_hub()
    node = start_node(hub_side.url, hub_side.know(), handler)
    session = await hub_side.sessions.get()
    await node.reach("connected")
    yield hub_side, node, session
    release.set()


async def gap_s(session, request_open) -> float:
    """The usual time between tokens, over four streams at once."""
    clock = asyncio.get_running_loop().time

    async def listen(uid: str) -> list[float]:
        stream = await session.open(request_open(uid))
        await stream.send(b"{}", fin=True)
        times, size = [], 0
        while data := await stream.receive():
            size += len(data)
            times.append(clock())
        assert size == TOKENS * len(b"data: token\n\n")
        return [later - earlier for earlier, later in pairwise(times)]

    gaps = await asyncio.gather(*(listen(f"tokens {number}") for number in range(4)))
    percentiles = quantiles(chain.from_iterable(gaps), n=100)
    logger.info("between tokens: p50 %.1f ms, p99 %.1f ms", percentiles[49] * 1000, percentiles[98] * 1000)
    return percentiles[49]


async def test_a_client_that_does_not_read_slows_nobody_down(tunnel, request_open, read_all) -> None:
    hub_side, _, session = tunnel
    before = await gap_s(session, request_open)
    slow = await session.open(request_open("sends much"))
    await slow.head()
    assert await gap_s(session, request_open) < before + GROWTH_S
    window = slow._state.window
    assert window.received == window.granted == INITIAL_WINDOW, "it got what it may have, and no more"
    assert hub_side.server._budget.reserved == INITIAL_WINDOW
    assert await read_all(slow) == BIG


async def test_an_engine_that_does_not_read_slows_nobody_down(tunnel, request_open) -> None:
    _, node, session = tunnel
    before = await gap_s(session, request_open)
    slow = await session.open(request_open("reads nothing"))
    sending = asyncio.create_task(slow.send(BIG, fin=True))
    assert await gap_s(session, request_open) < before + GROWTH_S
    assert not sending.done()
    (held,) = node.client.session._protocol.streams.values()
    assert held.window.received == held.window.granted == INITIAL_WINDOW
    assert node.client._budget.reserved == INITIAL_WINDOW < REQUEST_WINDOW_LIMIT
    sending.cancel()
