"""Dialling, proving who one is, and what happens to those who cannot."""

import asyncio
import contextlib
import select
import socket

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tunnel.backoff import Backoff
from tunnel.channel import memory_pair
from tunnel.errors import HandshakeRefused
from tunnel.frames import FrameType, decode, encode
from tunnel.handshake import host_matches, introduce, signed_hello
from tunnel.identity import NodeIdentity, sign_hello
from tunnel.messages import Challenge, Head, Hello, decode_message


class Recorded(Backoff):
    """A backoff that never waits and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.asked: asyncio.Queue[tuple[str, float | None]] = asyncio.Queue()

    def failed(self, retry_after: float | None = None) -> float:
        self.asked.put_nowait(("failed", retry_after))
        return 0.0

    def refused(self, retry_after: float | None = None) -> float:
        self.asked.put_nowait(("refused", retry_after))
        return 0.0


async def dial(hub_side, node_id: str = "node_a"):
    headers = {"X-Porten-Node": node_id}
    return await connect(
        hub_side.url,
        additional_headers=headers,
        subprotocols=["porten-tunnel.v1"],
        compression=None,
        proxy=None,
        ping_interval=None,
    )


async def challenged(connection) -> bytes:
    (frame,) = decode(await connection.recv())
    assert frame.type == FrameType.CHALLENGE
    return decode_message(Challenge, frame.payload).nonce


def hello_for(hub_side, **changes: object) -> Hello:
    host = f"127.0.0.1:{hub_side.server.port}"
    return msgspec.structs.replace(Hello(node_id="node_a", instance_id="i", host=host), **changes)


async def closing_code(connection) -> int:
    with contextlib.suppress(ConnectionClosed):
        async for _ in connection:
            pass
    return connection.close_code


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


async def test_silence_before_authentication_ends_it(hub_side) -> None:
    hub_side.know()
    connection = await dial(hub_side)
    assert await closing_code(connection) == 1008


@pytest.mark.parametrize(
    "junk", [b"\x00" * 12, bytes(5000), b"x", encode(FrameType.PING, 0, bytes(16)), "text"]
)
async def test_junk_before_authentication_ends_it(hub_side, junk) -> None:
    hub_side.know()
    connection = await dial(hub_side)
    await challenged(connection)
    await connection.send(junk)
    assert await closing_code(connection) == 1002


async def test_junk_after_authentication_ends_that_session_only(hub_side, new_node) -> None:
    good = new_node(hub_side.url, hub_side.know("node_b"))
    good.start()
    other = await hub_side.sessions.get()
    identity = hub_side.know()
    connection = await dial(hub_side)
    await connection.send(signed_hello(hello_for(hub_side), await challenged(connection), identity))
    session = await hub_side.sessions.get()
    await connection.send(encode(FrameType.DATA, 5, b"x"))
    assert await closing_code(connection) == 1002
    assert await hub_side.closed.get() is session
    assert other.close_reason is None
    await good.stop()


async def test_too_many_handshakes_are_told_when_to_come_back(new_hub, new_node) -> None:
    hub_side = new_hub(handshakes_per_s=0.0, handshake_burst=0, retry_after_s=7.0)
    await hub_side.server.start("127.0.0.1", 0)
    hub_side.know()
    with pytest.raises(InvalidStatus) as caught:
        await dial(hub_side)
    assert caught.value.response.status_code == 503
    assert 7 <= int(caught.value.response.headers["Retry-After"]) <= 14
    backoff = Recorded()
    node = new_node(hub_side.url, hub_side.know(), backoff=backoff)
    node.start()
    kind, retry_after = await backoff.asked.get()
    assert kind == "failed"
    assert 7 <= retry_after <= 14
    await node.stop()
    await hub_side.server.close()


async def test_too_many_unfinished_handshakes_from_one_address(new_hub) -> None:
    hub_side = new_hub(handshakes_per_address=1)
    await hub_side.server.start("127.0.0.1", 0)
    hub_side.know()
    first = await dial(hub_side)
    await challenged(first)
    with pytest.raises(InvalidStatus) as caught:
        await dial(hub_side)
    assert caught.value.response.status_code == 429
    await first.close()
    await hub_side.server.close()


async def test_a_hub_may_refuse_at_admission(hub_side, new_node) -> None:
    async def admit(node_id: str, instance_id: str, key):
        raise HandshakeRefused(503, reason="quarantine")

    hub_side.accounts.admit = admit
    backoff = Recorded()
    node = new_node(hub_side.url, hub_side.know(), backoff=backoff)
    node.start()
    assert (await backoff.asked.get())[0] == "failed"
    await node.stop()


async def test_a_node_comes_back_by_itself_when_the_hub_does(new_hub, new_node) -> None:
    first = new_hub()
    await first.server.start("127.0.0.1", 0)
    port = first.server.port
    identity = first.know()
    node = new_node(first.url, identity, backoff=Recorded())
    node.start()
    await first.sessions.get()
    await node.reach("connected")
    await first.server.close()
    await node.reach("waiting")
    second = new_hub()
    second.accounts = first.accounts
    second.server._gate.authenticator = first.accounts
    await second.server.start("127.0.0.1", port)
    session = await second.sessions.get()
    assert session.generation == 2
    await node.reach("connected")
    await node.stop()
    await second.server.close()


async def test_goaway_says_when_to_come_back(hub_side, new_node) -> None:
    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.start()
    first = await hub_side.sessions.get()
    await first.goaway("credential", reconnect_in=0.0, deadline=5.0)
    second = await hub_side.sessions.get()
    assert second.generation == 2
    await first.closed.wait()
    assert first.close_reason == "drained"
    await node.stop()


async def test_a_hub_that_drains_truncates_no_stream(new_hub, new_node, request_open) -> None:
    hub_side = new_hub()
    await hub_side.server.start("127.0.0.1", 0)
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        began.set()
        await release.wait()
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await began.wait()
    closing = asyncio.create_task(hub_side.server.close(drain_s=20))
    await node.client.session.leave_asked.wait()
    assert not closing.done()
    release.set()
    assert await stream.receive() == b"whole"
    await closing
    assert session.close_reason == "going away"
    await node.stop()


async def test_a_node_moves_to_another_hub_before_the_first_closes(new_hub, new_node, request_open) -> None:
    """Two Hubs with the same nodes; the first drains with a stream under way."""
    first, second = new_hub(least_smear_s=0.0), new_hub()
    second.accounts = second.server._gate.authenticator = first.accounts
    for side in (first, second):
        await side.server.start("127.0.0.1", 0)
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        began.set()
        if stream.open.uid == "slow":
            await release.wait()
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(first.url, first.know(), more=(second.url,), backoff=Recorded())
    node.handler = handler
    node.start()
    old = await first.sessions.get()
    slow = await old.open(request_open("slow"))
    await slow.send(b"", fin=True)
    await began.wait()
    closing = asyncio.create_task(first.server.close(drain_s=20))
    new = await second.sessions.get()
    assert old.close_reason is None, "the replacement stands before the first session ends"
    assert (old.generation, new.generation) == (1, 2)
    while not old.draining:
        await asyncio.sleep(0)
    fresh = await new.open(request_open("fresh"))
    await fresh.send(b"", fin=True)
    assert await fresh.receive() == b"whole"
    release.set()
    assert await slow.receive() == b"whole"
    await closing
    states = [node.states.get_nowait() for _ in range(node.states.qsize())]
    assert states == ["connecting", "connected", "connecting", "connected"]
    await node.stop()
    await second.server.close()


async def test_a_draining_hub_answers_through_a_node_that_has_nowhere_to_go(
    new_hub, new_node, request_open
) -> None:
    hub_side = new_hub(least_smear_s=0.0)
    await hub_side.server.start("127.0.0.1", 0)

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know(), backoff=Recorded())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    await hub_side.server.drain(20)
    await node.reach("connected")
    await node.reach("waiting")  # it dialled, and nobody listens there any more
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    assert await stream.receive() == b"whole"
    await hub_side.server.close()
    await node.stop()


async def test_a_node_that_stops_lets_its_streams_finish(hub_side, new_node, request_open) -> None:
    release, began = asyncio.Event(), asyncio.Event()

    async def handler(stream) -> None:
        began.set()
        await release.wait()
        await stream.send_head(Head(status=200, headers=()))
        await stream.send(b"whole", fin=True)

    node = new_node(hub_side.url, hub_side.know())
    node.handler = handler
    node.start()
    session = await hub_side.sessions.get()
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await began.wait()
    stopping = asyncio.create_task(node.client.stop(drain_s=20))
    while not session.draining:
        await asyncio.sleep(0)
    release.set()
    assert await stream.receive() == b"whole"
    await stopping
    await node.stop()


async def test_a_silent_peer_is_found_and_nothing_leaks(new_hub, new_node) -> None:
    """A node whose process is frozen: the socket stays open, no frame comes."""
    before = asyncio.all_tasks()
    hub_side = new_hub(heartbeat_s=0.06)  # dead after 0.16 s of silence
    await hub_side.server.start("127.0.0.1", 0)
    identity = hub_side.know()
    connection = await dial(hub_side)
    await connection.send(signed_hello(hello_for(hub_side), await challenged(connection), identity))
    session = await hub_side.sessions.get()
    assert await hub_side.closed.get() is session
    assert session.close_reason == "silent"
    await connection.close()
    await hub_side.server.close()
    assert not {task for task in asyncio.all_tasks() - before if not task.done()}


async def test_heartbeats_keep_an_idle_session(new_hub, new_node) -> None:
    hub_side = new_hub(heartbeat_s=0.1)
    await hub_side.server.start("127.0.0.1", 0)
    node = new_node(hub_side.url, hub_side.know())
    node.start()
    session = await hub_side.sessions.get()
    began = heard = session._protocol.liveness.heard
    while heard < began + 0.5:
        await asyncio.sleep(0.02)
        heard = session._protocol.liveness.heard
        assert session.close_reason is None
    await node.stop()
    await hub_side.server.close()


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


async def test_many_nodes_may_knock_at_the_same_moment(new_hub) -> None:
    hub = new_hub()
    await hub.server.start_on(socket.create_server(("127.0.0.1", 0)))
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        for _ in range(300):
            knocking = stack.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(("127.0.0.1", hub.server.port))  # it is our turn: nobody accepts meanwhile
            poll.register(knocking, select.POLLOUT)
        assert len(poll.poll(1000)) == 300
    await hub.server.close()


async def test_a_connection_lost_before_the_first_byte_is_a_dial_that_failed(
    hub_side, new_node, monkeypatch
) -> None:
    connected = ClientConnection.connection_made

    def lost_at_once(self, transport) -> None:
        connected(self, transport)
        transport.abort()
        self.connection_lost(None)

    with monkeypatch.context() as patched:
        patched.setattr(ClientConnection, "connection_made", lost_at_once)
        node = new_node(hub_side.url, hub_side.know(), backoff=Backoff(lambda: 0.01))
        node.start()
        await node.reach("waiting")
    await node.reach("connected")
    await node.stop()
