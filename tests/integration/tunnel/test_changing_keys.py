"""A node that changes its key: which key it dials with, and what becomes of the session under the old one."""

import asyncio

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel.backoff import Backoff
from tunnel.identity import NodeIdentity
from tunnel.messages import Head

NEXT = Ed25519PrivateKey.generate()


class Patient(Backoff):
    """Never comes back by itself."""

    def failed(self, retry_after: float | None = None) -> float:
        return 3600.0

    def refused(self, retry_after: float | None = None) -> float:
        return 3600.0


class Answers:
    """A handler that begins its answer, and ends it when it is told to."""

    def __init__(self) -> None:
        self.began, self.release = asyncio.Event(), asyncio.Event()

    async def __call__(self, stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        self.began.set()
        await self.release.wait()
        await stream.send(b"whole", fin=True)


def raw(*keys) -> list[bytes]:
    return [key.public_bytes_raw() for key in keys]


def with_next(identity: NodeIdentity, key: Ed25519PrivateKey = NEXT) -> NodeIdentity:
    return NodeIdentity(identity.node_id, identity.private_key, key)


def take(hub_side, *keys: Ed25519PrivateKey) -> None:
    """Let the Hub take these keys of the node, and no other."""
    hub_side.accounts.keys["node_a"] = tuple(key.public_key() for key in keys)


def signed_by(hub_side) -> list[bytes]:
    return raw(*hub_side.accounts.signed_by)


@pytest.fixture
async def began(hub_side, new_node, request_open):
    """A node with a session, and a stream in it that has begun."""
    identity = hub_side.know()
    node = new_node(hub_side.url, identity, backoff=Patient())
    node.handler = Answers()
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await node.handler.began.wait()
    yield identity, node, session, stream
    await node.stop()


async def test_the_next_key_opens_a_session_before_the_old_one_is_left(hub_side, began) -> None:
    identity, node, old, stream = began
    take(hub_side, identity.private_key, NEXT)
    node.client.renew(with_next(identity))
    new = await hub_side.sessions.get()
    assert (new.generation, new.replaces, new.instance_id) == (2, old.generation, old.instance_id)
    assert signed_by(hub_side) == raw(identity.private_key.public_key(), NEXT.public_key())
    assert old.close_reason is None, "nobody cut it"
    node.handler.release.set()
    assert await stream.receive() == b"whole"
    await old.closed.wait()
    assert old.close_reason == "drained"


async def test_a_session_that_follows_none_says_so(hub_side, new_node) -> None:
    node = new_node(hub_side.url, hub_side.know())
    node.start()
    assert (await hub_side.sessions.get()).replaces == 0
    await node.stop()


async def test_what_the_hub_does_not_take_is_followed_by_the_other_key_at_once(hub_side, new_node) -> None:
    identity = hub_side.know()
    node = new_node(hub_side.url, with_next(identity), backoff=Patient())
    node.start()
    first = await hub_side.sessions.get()
    assert hub_side.server._stats.handshakes == {"refused": 1, "welcomed": 1}
    await first.goaway("credential", reconnect_in=0.0, deadline=5.0)
    await hub_side.sessions.get()
    assert hub_side.server._stats.handshakes == {"refused": 1, "welcomed": 2}, (
        "the key that was taken is first"
    )
    assert set(signed_by(hub_side)) == set(raw(identity.private_key.public_key()))
    take(hub_side, NEXT)
    await first.closed.wait()
    node.client.renew(with_next(identity))
    await hub_side.sessions.get()
    assert signed_by(hub_side)[-1:] == raw(NEXT.public_key())
    await node.stop()


async def test_an_old_key_that_is_worth_nothing_is_followed_by_the_next(hub_side, new_node) -> None:
    identity = hub_side.know()
    node = new_node(hub_side.url, with_next(identity), backoff=Patient())
    node.start()
    first = await hub_side.sessions.get()
    take(hub_side, NEXT)
    await first.goaway("credential", reconnect_in=0.0, deadline=5.0)
    await hub_side.sessions.get()
    assert signed_by(hub_side) == raw(identity.private_key.public_key(), NEXT.public_key())
    await node.stop()


async def test_where_neither_key_is_taken_the_node_is_refused(hub_side, new_node) -> None:
    identity = hub_side.know()
    take(hub_side, Ed25519PrivateKey.generate())
    node = new_node(hub_side.url, with_next(identity), backoff=Patient())
    node.start()
    await node.reach("refused")
    assert hub_side.server._stats.handshakes == {"refused": 2}
    assert signed_by(hub_side) == []
    await node.stop()


async def test_a_node_that_stays_away_comes_at_once_with_a_new_key(hub_side, new_node) -> None:
    identity = hub_side.know()
    take(hub_side, NEXT)
    node = new_node(hub_side.url, identity, backoff=Patient())
    node.start()
    await node.reach("refused")
    node.client.renew(with_next(identity))
    await node.reach("connected")
    assert signed_by(hub_side) == raw(NEXT.public_key())
    await node.stop()


async def test_a_key_that_comes_while_the_last_one_dials_is_dialled_with_next(hub_side, new_node) -> None:
    identity = hub_side.know()
    take(hub_side, identity.private_key, NEXT)
    asked, go_on = asyncio.Event(), asyncio.Event()
    admit = hub_side.accounts.admit

    async def slow(*who):
        asked.set()
        await go_on.wait()
        return await admit(*who)

    hub_side.accounts.admit = slow
    node = new_node(hub_side.url, identity, backoff=Patient())
    node.start()
    await asked.wait()
    node.client.renew(with_next(identity))
    go_on.set()
    first, second = [await hub_side.sessions.get() for _ in range(2)]
    assert (second.replaces, second.generation) == (first.generation, 2)
    assert signed_by(hub_side) == raw(identity.private_key.public_key(), NEXT.public_key())
    await node.stop()


async def test_a_node_that_stops_finishes_what_an_older_session_has_begun(hub_side, began) -> None:
    identity, node, old, stream = began
    take(hub_side, identity.private_key, NEXT)
    node.client.renew(with_next(identity))
    new = await hub_side.sessions.get()
    for _ in range(2):
        await node.reach("connected")
    stopping = asyncio.create_task(node.client.stop(drain_s=30))
    await new.closed.wait()
    node.client.renew(with_next(identity))  # comes too late to be dialled with
    assert old.close_reason is None
    node.handler.release.set()
    assert await stream.receive() == b"whole"
    await stopping
    assert hub_side.sessions.empty()
