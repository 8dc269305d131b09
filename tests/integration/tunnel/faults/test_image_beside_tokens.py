"""A picture beside tokens, on a line of 20 Mbit/s and 40 ms: the tokens hardly notice.

A tunnel that let an upload's whole window go ahead of a token would hold it up by 100 ms to 400 ms.
"""

import asyncio
import logging
from itertools import pairwise
from statistics import quantiles

import pytest

from tunnel.errors import StreamReset
from tunnel.messages import Head

MBIT_S, ONE_WAY_S = 20.0, 0.02
PICTURE = bytes(8 * 1024 * 1024)  # takes 3.4 s
TOKENS, PACE_S = 120, 0.02
GROWTH_S = 0.02  # of the median: p99, of which it is promised, is also what else this machine does
OK = Head(status=200, headers=())
logger = logging.getLogger(__name__)


@pytest.fixture
async def session(start_hub, start_node, new_relay):
    async def handler(stream) -> None:
        await stream.send_head(OK)
        if stream.open.uid == "picture comes":
            while await stream.receive():
                pass
            await stream.send(b"seen", fin=True)
        elif stream.open.uid == "picture goes":
            await stream.send(PICTURE, fin=True)
        else:
            for _ in range(TOKENS):
                await asyncio.sleep(PACE_S)
                await stream.send(b"data: token\n\n")
            await stream.send(b"", fin=True)

    hub_side = await start_hub()
    relay = await new_relay(hub_side.server.port, mbit_s=MBIT_S, latency_s=ONE_WAY_S)
    start_node(relay.url, hub_side.know(), handler)
    return await hub_side.sessions.get()


async def gaps_s(session, request_open) -> list[float]:
    """Percentiles of the time between a neighbour's tokens."""
    clock = asyncio.get_running_loop().time
    stream = await session.open(request_open("tokens"))
    await stream.send(b"{}", fin=True)
    times = []
    while await stream.receive():
        times.append(clock())
    return quantiles([later - earlier for earlier, later in pairwise(times)], n=100)


async def upload(session, request_open) -> None:
    stream = await session.open(request_open("picture comes"))
    await stream.send(PICTURE, fin=True)


async def download(session, request_open) -> None:
    stream = await session.open(request_open("picture goes"))
    await stream.send(b"", fin=True)
    while await stream.receive():
        pass


@pytest.mark.parametrize("transfer", [upload, download])
async def test_pictures_beside_tokens(session, request_open, transfer) -> None:
    alone = await gaps_s(session, request_open)
    pictures = [asyncio.create_task(transfer(session, request_open)) for _ in range(2)]
    beside = await gaps_s(session, request_open)
    for percentile in (50, 90, 99):
        here, there = (each[percentile - 1] * 1000 for each in (alone, beside))
        logger.info("p%d between tokens: %.1f ms alone, %.1f ms beside", percentile, here, there)
    assert not any(picture.done() for picture in pictures), "they were to be under way all the time"
    await session.close("seen enough")
    for picture in pictures:
        with pytest.raises(StreamReset):
            await picture
    assert beside[49] - alone[49] < GROWTH_S
