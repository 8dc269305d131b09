"""Another key for a node, on a real Hub: who may announce one, and what each is worth at the door."""

import contextlib
import logging
import time
from dataclasses import dataclass
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tunnel.dial import Dialler
from tunnel.errors import HandshakeRefused
from tunnel.identity import NodeIdentity, encode_public_key, read_credential

NEXT = Ed25519PrivateKey.generate()
FOREIGN = Ed25519PrivateKey.generate()
DAY_S = 86_400


def text_of(key: Ed25519PrivateKey) -> str:
    return encode_public_key(key.public_key())


@dataclass
class Joined:
    """A machine that has joined, and what the Hub holds about it."""

    bench: Any
    machine: Any
    id: str

    def announcement(self, public_key: Any = None, **changes: Any) -> str:
        wish = text_of(NEXT) if public_key is None else public_key
        return self.machine.announcement(self.id, self.bench.hub.hub_id, wish, **changes)

    async def announce(self, *wish: Any, **changes: Any) -> Any:
        return await self.machine.rotate(self.announcement(*wish, **changes))

    async def stored(self) -> Any:
        return await self.bench.hub.storage.nodes.get(self.id)

    async def keys(self) -> tuple[str, str | None]:
        node = await self.stored()
        return node.public_key, node.next_public_key

    @contextlib.asynccontextmanager
    async def dialled(self, key: Ed25519PrivateKey, next_key: Ed25519PrivateKey | None = None):
        """A connection under a key; gives the public key that the credential names."""
        identity = NodeIdentity(self.id, key, next_key)
        options = {"agent": "x", "ssl_context": None, "proxy": None, "max_streams": 1}
        dialler = Dialler(identity=identity, instance_id="instance", **options)
        async with dialler.dial(self.bench.hub.addresses.tunnel_local) as (_, welcome):
            hub_key = self.bench.hub.key.public_key()
            yield read_credential(welcome.credential, hub_key).public_key

    async def named(self, *keys: Ed25519PrivateKey) -> str:
        async with self.dialled(*keys) as named:
            return named


@pytest.fixture
async def node(bench, machine, join_token) -> Joined:
    told = (await machine.join(await join_token())).json()
    return Joined(bench, machine, told["node_id"])


async def test_a_node_announces_its_next_key_as_often_as_it_likes(node, machine, clock):
    for _ in range(2):
        assert (await node.announce()).status_code == 204
        assert await node.keys() == (machine.public_key, text_of(NEXT))
        assert (await node.stored()).next_key_expires_at == clock() + DAY_S
        clock.now += 10
    assert (await node.announce(text_of(FOREIGN))).status_code == 204
    assert await node.keys() == (machine.public_key, text_of(FOREIGN))


async def test_the_key_that_a_node_has_is_announced_without_effect(node, machine):
    assert (await node.announce(machine.public_key)).status_code == 204
    assert await node.keys() == (machine.public_key, None)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": FOREIGN},
        {"key": NEXT},
        {"key": None},
        {"aud": "hub_other"},
        {"sub": "node_none"},
        {"typ": "porten-leave+jwt"},
        {"exp": int(time.time()) + 3_600},
        {"iat": 1, "exp": 61},
        {"iat": "soon"},
    ],
)
async def test_nobody_gives_a_node_another_key_but_itself(node, machine, refused, changes):
    assert refused(await node.announce(**changes)) == (401, "invalid_client")
    assert await node.keys() == (machine.public_key, None)


async def test_what_is_no_key_is_not_taken_for_one(node, machine, refused):
    good = machine.public_key
    for wrong in ("", good[:-1], f"{good}AA", "\u00e9" * 43, 7, [good], {}):
        assert refused(await node.announce(wrong)) == (400, "invalid_request"), wrong
    assert await node.keys() == (machine.public_key, None)


async def test_a_revoked_node_gets_no_other_key(node, machine, refused):
    await node.bench.hub.enrollment.revoke(node.id)
    for wish in (text_of(NEXT), machine.public_key):
        assert refused(await node.announce(wish)) == (401, "invalid_client")
    assert await node.keys() == (machine.public_key, None)


async def test_neither_a_farewell_nor_a_credential_changes_the_key(node, machine, refused):
    farewell = machine.farewell(node.id, node.bench.hub.hub_id, public_key=text_of(NEXT))
    credential = node.bench.hub.enrollment.credential_for(await node.stored())
    for headers in ({}, {"authorization": "Bearer"}, {"authorization": f"Basic {node.announcement()}"}):
        assert refused(await machine.post("rotate", headers=headers)) == (401, "invalid_client")
    for token in (farewell, credential, "x", "a.b.c"):
        assert refused(await machine.rotate(token)) == (401, "invalid_client")
    assert await node.keys() == (machine.public_key, None)


async def test_the_old_key_opens_the_tunnel_until_the_next_one_has(node, machine):
    await node.announce()
    assert await node.named(machine.key) == machine.public_key
    assert await node.keys() == (machine.public_key, text_of(NEXT))
    assert await node.named(NEXT) == text_of(NEXT)
    assert await node.keys() == (text_of(NEXT), None)
    with pytest.raises(HandshakeRefused) as refused:
        await node.named(machine.key)
    assert refused.value.status == 401
    assert await node.named(NEXT) == text_of(NEXT)


@pytest.mark.parametrize("announced", [False, True])
async def test_a_key_of_somebody_else_opens_nothing(node, announced):
    if announced:
        await node.announce()
    with pytest.raises(HandshakeRefused) as refused:
        await node.named(FOREIGN)
    assert refused.value.status == 401
    assert (await node.stored()).generation == 0


async def test_a_next_key_that_has_lapsed_opens_nothing_and_may_be_announced_again(node, machine, clock):
    lapsed = node.bench.hub.clock() - 1
    assert await node.bench.hub.storage.nodes.set_next_key(
        await node.stored(), text_of(NEXT), expires_at=lapsed
    )
    with pytest.raises(HandshakeRefused):
        await node.named(NEXT)
    assert await node.named(machine.key) == machine.public_key
    assert (await node.announce()).status_code == 204
    assert await node.named(NEXT) == text_of(NEXT)


async def test_a_node_with_two_keys_gets_in_whichever_the_hub_takes(node, machine):
    assert await node.named(machine.key, NEXT) == machine.public_key, "nobody has announced the next one"
    await node.announce()
    assert await node.named(machine.key, NEXT) == text_of(NEXT)
    assert await node.named(NEXT, machine.key) == text_of(NEXT), "the old one is refused first"


async def test_a_session_under_the_old_key_ends_with_the_first_under_the_next(node, machine, script):
    registry = node.bench.hub.registry
    await node.announce()
    async with node.dialled(machine.key):
        await script.until(lambda: registry.session(node.id), "the old session is here")
        old = registry.session(node.id)
        async with node.dialled(NEXT):
            await script.until(lambda: registry.session(node.id) is not old, "the new session is here")
            await old.closed.wait()
            assert old.close_reason == "superseded"


async def test_after_the_change_the_next_key_speaks_for_the_node(node, machine, refused):
    await node.announce()
    await node.named(NEXT)
    assert refused(await node.announce(text_of(FOREIGN))) == (401, "invalid_client")
    assert refused(await machine.leave(machine.farewell(node.id, node.bench.hub.hub_id))) == (
        401,
        "invalid_client",
    )
    assert (await node.announce(text_of(NEXT), key=NEXT)).status_code == 204, "asked once more, it is done"
    assert await node.keys() == (text_of(NEXT), None)
    farewell = machine.farewell(node.id, node.bench.hub.hub_id, key=NEXT)
    assert (await machine.leave(farewell)).status_code == 204


async def test_no_token_is_in_any_log_line(node, caplog):
    caplog.set_level(logging.DEBUG)
    token = node.announcement()
    assert (await node.machine.rotate(token)).status_code == 204
    lines = "\n".join(str(vars(record)) for record in caplog.records)
    assert "node.key_announced" in lines
    assert token not in lines
