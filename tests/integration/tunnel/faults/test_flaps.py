"""A line that keeps breaking, under load: every request ends, in one way, once; and nothing is left over."""

import asyncio
import logging
import os
from collections import Counter
from random import Random

import pytest

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, SessionClosed, StreamReset
from tunnel.messages import Head

CUTS = 28
CALLERS = 50
SOAK_S = float(os.environ.get("PORTEN_SOAK_S", "600"))
SOAK_CALLERS = 200
HEARTBEAT_S = 0.3
OK = Head(status=200, headers=())
logger = logging.getLogger(__name__)
DIRECTIONS = (("up",), ("down",), ("up", "down"))


class Load:
    """Callers who ask one short thing after the other, and what became of it."""

    def __init__(self, sessions: asyncio.Queue, request_open, read_all) -> None:
        self.ends: Counter[str] = Counter()
        self.executed: Counter[str] = Counter()
        self.seen = []
        self.over = False
        self._sessions = sessions
        self._request_open = request_open
        self._read_all = read_all
        self._fresh = asyncio.Condition()

    async def follow(self) -> None:
        """Know the newest session."""
        while True:
            self.seen.append(await self._sessions.get())
            async with self._fresh:
                self._fresh.notify_all()

    async def handle(self, stream) -> None:
        self.executed[stream.open.uid] += 1
        body = await self._read_all(stream)
        await stream.send_head(OK)
        for at in range(0, len(body), 5_000):
            await stream.send(body[at : at + 5_000])
            await asyncio.sleep(0.002)
        await stream.send(b"", fin=True)

    async def call(self, name: int) -> None:
        pick = Random(name)
        number = 0
        while not self.over:
            number += 1
            async with self._fresh:
                await self._fresh.wait_for(self._standing)
            body = pick.randbytes(pick.choice([10, 2_000, 40_000]))
            self.ends[await self._ask(self.seen[-1], f"{name}/{number}", body)] += 1

    def _standing(self) -> bool:
        return bool(self.seen) and self.seen[-1].close_reason is None

    async def _ask(self, session, uid: str, body: bytes) -> str:
        try:
            stream = await session.open(self._request_open(uid))
            await stream.send(body, fin=True)
            answer = await self._read_all(stream)
        except StreamReset as reset:
            return reset.code.name
        except SessionClosed:
            return "not sent"
        assert answer == body, "an answer that ends in order is whole"
        return "whole"


async def break_the_line(relay) -> None:
    """Cut it, or let it fall silent in one direction or both, again and again."""
    pick = Random(2)
    for _ in range(CUTS):
        await asyncio.sleep(pick.uniform(0.2, 1.2))
        if pick.random() < 0.6:
            await relay.cut()
        else:
            relay.freeze(*pick.choice(DIRECTIONS))


async def interrupt_the_line(relay, seconds: float) -> None:
    """Take the line away for 1 s to 30 s at a time: refused at once, or silent."""
    pick, port = Random(3), relay.target
    clock = asyncio.get_running_loop().time
    end = clock() + seconds
    while clock() < end:
        await asyncio.sleep(pick.uniform(1, 10))
        if pick.random() < 0.5:
            relay.target = None
            await relay.cut()
        else:
            relay.freeze(*pick.choice(DIRECTIONS))
        await asyncio.sleep(pick.uniform(1, 30))
        relay.target = port
        relay.thaw()


async def all_is_well_and_nothing_is_left(load: Load, hub_side, node, callers) -> None:
    """Let everybody have one whole answer more, end, and count."""
    whole = load.ends["whole"]
    while load.ends["whole"] < whole + len(callers):
        await asyncio.sleep(0.05)  # the line is well again: so are the callers, each by itself
    load.over = True
    await asyncio.gather(*callers)
    logger.info("%d sessions; requests ended: %s", len(load.seen), dict(load.ends))
    assert set(load.ends) <= {"whole", ResetCode.SESSION_LOST.name, "not sent"}
    assert load.ends["whole"] > load.ends[ResetCode.SESSION_LOST.name] > 0
    assert max(load.executed.values()) == 1, "nothing runs twice"
    assert load.ends.total() - load.ends["not sent"] >= len(load.executed)
    await node.stop()
    for session in load.seen:
        await session.closed.wait()
        assert session.streams == 0
    assert hub_side.server._budget.reserved == node.client._budget.reserved == 0
    assert not hub_side.server.sessions


async def test_random_flaps_under_load(start_hub, start_node, new_relay, request_open, read_all) -> None:
    hub_side = await start_hub(
        heartbeat_s=HEARTBEAT_S, handshakes_per_s=1000.0, handshake_burst=1000, handshake_timeout_s=1.0
    )
    relay = await new_relay(hub_side.server.port)
    pick = Random(1)
    load = Load(hub_side.sessions, request_open, read_all)
    node = start_node(relay.url, hub_side.know(), load.handle, backoff=Backoff(lambda: 0.02 * pick.random()))
    following = asyncio.create_task(load.follow())
    callers = [asyncio.create_task(load.call(name)) for name in range(CALLERS)]
    await break_the_line(relay)
    await all_is_well_and_nothing_is_left(load, hub_side, node, callers)
    following.cancel()
    assert len(load.seen) > CUTS / 4


@pytest.mark.soak
@pytest.mark.timeout(SOAK_S + 180)
async def test_long_flaps_under_load(start_hub, start_node, new_relay, request_open, read_all) -> None:
    """With the limits and times of a real installation."""
    hub_side = await start_hub()
    relay = await new_relay(hub_side.server.port)
    load = Load(hub_side.sessions, request_open, read_all)
    node = start_node(relay.url, hub_side.know(), load.handle)
    following = asyncio.create_task(load.follow())
    callers = [asyncio.create_task(load.call(name)) for name in range(SOAK_CALLERS)]
    await interrupt_the_line(relay, SOAK_S)
    await all_is_well_and_nothing_is_left(load, hub_side, node, callers)
    following.cancel()
