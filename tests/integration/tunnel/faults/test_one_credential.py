"""Row "two instances, one credential": one owner a generation. (Keeping both out is `hub.clones`' matter.)"""

import asyncio

import pytest

from tunnel.backoff import Backoff
from tunnel.errors import ResetCode, SessionClosed, StreamReset
from tunnel.messages import Head

ROUNDS = 6


async def test_the_newest_generation_is_the_only_owner(start_hub, start_node, request_open) -> None:
    """They take the node from each other; at every moment one of them has it, and only what is its own."""
    served: dict[str, list[int]] = {"first": [], "second": []}

    def serve(name: str):
        async def handler(stream) -> None:
            served[name].append(stream.open.generation)
            await stream.send_head(Head(status=200, headers=()))
            await asyncio.Event().wait()

        return handler

    hub_side = await start_hub()
    identity = hub_side.know()
    start_node(hub_side.url, identity, serve("first"), instance_id="first", backoff=Backoff(lambda: 0.0))
    session = await hub_side.sessions.get()
    start_node(hub_side.url, identity, serve("second"), instance_id="second", backoff=Backoff(lambda: 0.0))
    owners = {}
    for generation in range(1, ROUNDS + 1):
        assert session.generation == generation
        owners[generation] = session.instance_id
        stream = await session.open(request_open(generation=generation))
        await stream.head()
        newest = await hub_side.sessions.get()
        await session.close("superseded")
        with pytest.raises(StreamReset) as caught:
            await stream.receive()
        assert caught.value.code is ResetCode.SESSION_LOST
        with pytest.raises(SessionClosed):
            await session.open(request_open())
        assert hub_side.server.sessions == {newest}
        session = newest
    for name, generations in served.items():
        assert generations == [number for number, owner in owners.items() if owner == name]
    assert set(owners.values()) == {"first", "second"}
