"""Row "half-open": found within the liveness times; the replacement serves; nothing leaks."""

import asyncio

import pytest

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, StreamReset
from tunnel.liveness import LivenessTimes
from tunnel.messages import Head

HEARTBEAT_S = 0.6
TIMES = LivenessTimes.for_heartbeat(HEARTBEAT_S)  # dead after 1.6 s of silence


@pytest.mark.parametrize("frozen", [("up",), ("down",), ("up", "down")], ids="+".join)
async def test_half_open_is_found_in_time_and_the_replacement_serves(
    start_hub, start_node, new_relay, ask, answer, request_open, frozen
) -> None:
    cancelled = asyncio.Event()

    async def handler(stream) -> None:
        if stream.open.uid != "held":
            await answer(stream)
            return
        await stream.send_head(Head(status=200, headers=()))
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    hub_side = await start_hub(heartbeat_s=HEARTBEAT_S)
    relay = await new_relay(hub_side.server.port)
    node = start_node(relay.url, hub_side.know(), handler, backoff=Backoff(lambda: 0.1))
    session = await hub_side.sessions.get()
    held = await session.open(request_open("held"))
    await held.head()
    old = node.client.session
    clock = asyncio.get_running_loop().time
    relay.freeze(*frozen)
    began = clock()
    with pytest.raises(StreamReset) as caught:
        await held.receive()
    assert caught.value.code is ResetCode.SESSION_LOST
    await cancelled.wait()
    await old.closed.wait()
    assert "silent" in (session.close_reason, old.close_reason)
    # The first side to notice needs its silence; where it cannot tell the other, that one needs its own.
    assert clock() - began < 3 * TIMES.silence_s
    replacement = await hub_side.sessions.get()
    assert replacement.generation == 2
    assert await ask(replacement) == b"whole: {}"
    assert session not in hub_side.server.sessions


async def test_a_line_that_is_slow_for_less_than_the_silence_is_no_death(
    start_hub, start_node, new_relay, ask, answer
) -> None:
    hub_side = await start_hub(heartbeat_s=HEARTBEAT_S)
    relay = await new_relay(hub_side.server.port)
    start_node(relay.url, hub_side.know(), answer)
    session = await hub_side.sessions.get()
    await hub_side.statuses.get()
    relay.freeze("up", "down")
    asking = asyncio.create_task(ask(session))
    await asyncio.sleep(TIMES.silence_s / 2)
    relay.thaw()
    assert await asking == b"whole: {}"
    assert session.close_reason is None
