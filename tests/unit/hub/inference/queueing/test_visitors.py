"""Who asks without a secret of their own is looked at again before each choice of a node."""

import asyncio

import pytest

from hub.changes import KeyChanged
from hub.errors import RequestFailed
from tests.unit.hub.inference.queueing.waiting import ROOM, caller, fleet


async def test_who_asks_without_a_secret_is_looked_at_again_before_each_choice(world, requests):
    await fleet(world, n1={})
    mine, looks, gone = await caller(world), [], []

    async def look():
        looks.append(len(requests.order))
        await asyncio.sleep(0)
        if gone:
            raise RequestFailed("invalid_api_key", "signed out", param="session")

    await requests.fill(mine, count=ROOM - 1)
    await requests.begin("visits", mine, look_again=look)
    await requests.begin("waits", mine, look_again=look)
    assert looks == [ROOM - 1, ROOM], "each before its first choice"
    gone.append("signed out")
    await requests.end("first0")
    with pytest.raises(RequestFailed) as caught:
        await requests.tasks["waits"]
    assert (caught.value.code, caught.value.param) == ("invalid_api_key", "session")
    assert looks == [ROOM - 1, ROOM, ROOM]
    await requests.begin("next", mine)
    assert requests.order[-1] == "next", "the place was given back"


async def test_who_is_signed_out_while_their_changed_key_is_read_gets_no_node(world, requests):
    [session] = (await fleet(world, n1={})).values()
    mine, gone = await caller(world), []

    async def look():
        await asyncio.sleep(0)
        if gone:
            raise RequestFailed("invalid_api_key", "signed out", param="session")

    read = world.by_hash

    async def by_hash(key_hash):
        found = await read(key_hash)
        gone.append("signed out, while the database takes its time")
        return found

    world.by_hash = by_hash
    world.changes.publish(KeyChanged(mine.key.id))
    await requests.begin("visits", mine, look_again=look)
    with pytest.raises(RequestFailed, match="signed out"):
        await requests.tasks["visits"]
    assert not session.opened
