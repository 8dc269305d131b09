"""A request that is over before its answer: the relay hangs up on the engine and gives the slot back."""

import asyncio
import time
from typing import Any

import pytest

from tunnel.errors import ResetCode, StreamReset


async def test_the_deadline_ends_a_request(engine: Any, bridge: Any, leases: Any) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.gone()
        hung_up.set()

    engine.script = script
    stream = await bridge.open(deadline=time.time() + 0.2)
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.DEADLINE
    async with asyncio.timeout(5):
        await hung_up.wait()
        await leases.free.wait()


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
async def test_a_reset_from_the_hub_hangs_up_on_the_engine(
    engine: Any, bridge: Any, leases: Any, sse: Any, moment: str
) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        if moment == "in the body":
            await connection.stream_head()
            await connection.chunk(sse("x"))
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    stream = await bridge.open()
    if moment == "in the body":
        await stream.receive()
    await asked.wait()
    stream.reset(ResetCode.CANCELLED)
    async with asyncio.timeout(1):  # the promise: generation stops within a second
        await hung_up.wait()
        await leases.free.wait()
    assert leases.failed == []


async def test_a_lost_session_hangs_up_on_the_engine(engine: Any, bridge: Any, leases: Any) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    await bridge.open()
    await asked.wait()
    await bridge.hub.close("gone")
    async with asyncio.timeout(5):
        await hung_up.wait()
        await leases.free.wait()
