"""Proving who one is: the HELLO that is taken, those that are not, and the Hub that refuses."""

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.tunnel.connecting.dialling import Recorded, challenged, closing_code, dial, hello_for
from tunnel.channel import memory_pair
from tunnel.errors import HandshakeRefused
from tunnel.frames import FrameType, encode
from tunnel.handshake import host_matches, introduce, signed_hello
from tunnel.identity import NodeIdentity, sign_hello


async def test_a_known_node_is_welcomed(hub_side, new_node) -> None:
    node = new_node(hub_side.url, hub_side.know())
    node.start()
    session = await hub_side.sessions.get()
    welcome = await node.welcomes.get()
    assert (welcome.generation, welcome.credential) == (1, "credential-1")
    assert welcome.hub_id == "hub_test"
    assert (session.node_id, session.instance_id, session.generation) == ("node_a", "inst_1", 1)
    assert session.agent == "porten/test"
    assert session.remote_address == "127.0.0.1"
    status = await hub_side.statuses.get()
    assert status.sequence == 1
    await node.stop()
    assert await hub_side.closed.get() is session
    states = [node.states.get_nowait() for _ in range(node.states.qsize())]
    assert states == ["connecting", "connected", "stopped"]


async def test_an_unknown_node_is_turned_away_before_the_upgrade(hub_side, new_node) -> None:
    backoff = Recorded()
    stranger = NodeIdentity("node_x", Ed25519PrivateKey.generate())
    node = new_node(hub_side.url, stranger, backoff=backoff)
    node.start()
    await node.reach("refused")
    assert await backoff.asked.get() == ("refused", None)
    hub_side.accounts.keys["node_x"] = (stranger.private_key.public_key(),)
    await node.reach("connected")  # it kept trying, and was enrolled meanwhile
    await node.stop()


async def test_a_node_without_the_key_is_refused_after_the_upgrade(hub_side, new_node) -> None:
    hub_side.know("node_a")
    thief = NodeIdentity("node_a", Ed25519PrivateKey.generate())
    node = new_node(hub_side.url, thief, backoff=Recorded())
    node.start()
    await node.reach("refused")
    assert hub_side.accounts.admitted == []
    await node.stop()


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "other.example:8421"},
        {"node_id": "node_b"},
        {"versions": (2,)},
    ],
)
async def test_a_hello_for_somebody_else_is_refused(hub_side, changes) -> None:
    identity = hub_side.know()
    hub_side.know("node_b")
    connection = await dial(hub_side)
    nonce = await challenged(connection)
    await connection.send(signed_hello(hello_for(hub_side, **changes), nonce, identity))
    assert await closing_code(connection) == 4401
    assert hub_side.accounts.admitted == []


async def test_a_replayed_hello_is_refused(hub_side) -> None:
    identity = hub_side.know()
    first = await dial(hub_side)
    hello = signed_hello(hello_for(hub_side), await challenged(first), identity)
    await first.send(hello)
    session = await hub_side.sessions.get()
    again = await dial(hub_side)
    await challenged(again)
    await again.send(hello)
    assert await closing_code(again) == 4401
    assert session.close_reason is None
    await first.close()


async def test_a_changed_hello_is_refused(hub_side) -> None:
    identity = hub_side.know()
    connection = await dial(hub_side)
    hello = signed_hello(hello_for(hub_side, agent="agent-a"), await challenged(connection), identity)
    await connection.send(hello.replace(b"agent-a", b"agent-b"))
    assert await closing_code(connection) == 4401


async def test_a_hello_may_carry_fields_we_do_not_know(hub_side) -> None:
    identity = hub_side.know()
    connection = await dial(hub_side)
    nonce = await challenged(connection)
    fields = msgspec.structs.asdict(hello_for(hub_side)) | {"added_in_v2": [1]}
    hello = msgspec.msgpack.encode(fields)
    parts = {"hub_host": fields["host"], "node_id": "node_a", "instance_id": "i"}
    signature = sign_hello(identity.private_key, nonce=nonce, hello=hello, **parts)
    await connection.send(encode(FrameType.HELLO, payload=hello + signature, aux=len(signature)))
    assert (await hub_side.sessions.get()).node_id == "node_a"
    await connection.close()


async def test_a_hub_may_refuse_at_admission(hub_side, new_node) -> None:
    async def admit(node_id: str, instance_id: str, key):
        raise HandshakeRefused(503, reason="quarantine")

    hub_side.accounts.admit = admit
    backoff = Recorded()
    node = new_node(hub_side.url, hub_side.know(), backoff=backoff)
    node.start()
    assert (await backoff.asked.get())[0] == "failed"
    await node.stop()


async def test_introducing_oneself_to_a_hub_that_hangs_up(hub_side) -> None:
    ours, theirs = memory_pair()
    await theirs.close(4401, "revoked")
    with pytest.raises(HandshakeRefused) as caught:
        await introduce(ours, identity=hub_side.know(), instance_id="i", host="h")
    assert caught.value.status == 401


@pytest.mark.parametrize(
    ("host", "names", "matches"),
    [
        ("hub.example", ("hub.example",), True),
        ("HUB.example:8421", ("hub.example",), True),
        ("hub.example:8421", ("hub.example:8421",), True),
        ("hub.example:8422", ("hub.example:8421",), False),
        ("hub.example", ("hub.example:8421",), False),
        ("[::1]:8421", ("[::1]",), True),
        ("evil.example", ("hub.example",), False),
        ("hub.example:x", ("hub.example",), False),
        ("", ("hub.example",), False),
    ],
)
def test_host_names(host: str, names: tuple[str, ...], matches: bool) -> None:
    assert host_matches(host, names) is matches
