"""Row "N with N-1": a peer a release behind lacks fields, one ahead adds fields and frames; both ways work.

A peer behind leaves out every field that has a default, `features` among them. A peer ahead names versions
and features that we do not know, adds a field to every message, and sends frames of types from 0x81.
"""

import asyncio
from typing import Any

import msgspec
import pytest

from tunnel.frames import CREDIT_OFFSET, FLAG_FIN, FLAG_TRAILERS, PING_BODY, FrameType, decode, encode
from tunnel.identity import NodeIdentity, sign_hello
from tunnel.messages import Notice, Trailers

AHEAD = {"added_in_v2": {"nested": [1, 2, 3]}, "another": b"\x00\xff"}
FROM_THE_FUTURE = encode(0x81) + encode(0xFF, 1, b"anything", flags=0xFF, aux=0xFFFF)


class Dialect:
    """How a peer of another release writes."""

    def __init__(self, *, ahead: bool) -> None:
        self.ahead = ahead

    def frame(self, kind: FrameType, stream: int, fields: dict[str, Any], **header: int) -> bytes:
        return self.around(encode(kind, stream, self.map(fields), **header))

    def map(self, fields: dict[str, Any]) -> bytes:
        return msgspec.msgpack.encode(fields | AHEAD if self.ahead else fields)

    def around(self, frame: bytes) -> bytes:
        return FROM_THE_FUTURE + frame + FROM_THE_FUTURE if self.ahead else frame

    def hello(self, identity: NodeIdentity, nonce: bytes, host: str) -> bytes:
        fields = {"node_id": identity.node_id, "instance_id": "i", "host": host}
        news = {"versions": [1, 2], "features": ["resume"]} if self.ahead else {}
        hello = self.map(fields | news)
        parts = {"hub_host": host, "node_id": identity.node_id, "instance_id": "i"}
        signature = sign_hello(identity.private_key, nonce=nonce, hello=hello, **parts)
        return encode(FrameType.HELLO, payload=hello + signature, aux=len(signature))


@pytest.fixture(params=["behind", "ahead"])
def dialect(request) -> Dialect:
    return Dialect(ahead=request.param == "ahead")


async def test_a_node_of_another_release_serves(start_hub, dial_raw, request_open, dialect) -> None:
    hub_side = await start_hub()
    identity = hub_side.know()
    peer = await dial_raw(hub_side)
    challenge = msgspec.msgpack.decode((await peer.next(FrameType.CHALLENGE)).payload)
    await peer.send(dialect.hello(identity, challenge["nonce"], f"127.0.0.1:{hub_side.server.port}"))
    await peer.next(FrameType.WELCOME)
    session = await hub_side.sessions.get()
    session.notice(Notice(draining=True))  # of a type that a node which does not know it ignores
    assert msgspec.msgpack.decode((await peer.next(0x80)).payload) == {"draining": True}
    report = {"agent": "a", "accepting": True, "devices": [], "replicas": [], "models": []}
    await peer.send(dialect.frame(FrameType.STATUS, 0, report))
    assert (await hub_side.statuses.get()).agent == "a"
    stream = await session.open(request_open())
    await stream.send(b"question", fin=True)
    opened = msgspec.msgpack.decode((await peer.next(FrameType.OPEN)).payload)
    assert {"uid", "generation", "method", "path", "headers", "deadline", "ticket"} <= opened.keys()
    await peer.send(dialect.frame(FrameType.HEAD, 1, {"status": 200, "headers": []}))
    trailers = dialect.map({"outcome": "stop"})
    flags = FLAG_FIN | FLAG_TRAILERS
    last = encode(FrameType.DATA, 1, b"whole" + trailers, flags=flags, aux=len(trailers))
    await peer.send(dialect.around(last))
    assert (await stream.head()).status == 200
    assert await stream.receive() == b"whole"
    assert stream.trailers == Trailers(outcome="stop")
    refused = await session.open(request_open())
    await peer.send(dialect.frame(FrameType.RESET, refused.id, {"code": 200 if dialect.ahead else 1}))
    farewell = {"reason": "update", "reconnect_in": 0.0, "deadline": 9.0, "last_stream": 2}
    await peer.send(dialect.frame(FrameType.GOAWAY, 0, farewell))
    while not session.draining:
        await asyncio.sleep(0)
    assert session.close_reason is None


async def test_a_node_serves_a_hub_of_another_release(raw_hub, start_node, answer, dialect) -> None:
    async def shake_hands(channel) -> None:
        await channel.send(encode(FrameType.CHALLENGE, 0, dialect.map({"nonce": bytes(32), "hub_id": "h"})))
        (hello,) = decode(await channel.receive())
        assert msgspec.msgpack.decode(hello.payload[: -hello.aux])["versions"] == [1]
        granted = {"generation": 1, "hub_id": "h", "heartbeat_s": 15.0, "max_streams": 256, "credential": "c"}
        news = {"features": ["resume"]} if dialect.ahead else {}
        await channel.send(encode(FrameType.WELCOME, 0, dialect.map(granted | news)))

    raw_hub.shake_hands = shake_hands
    node = start_node(raw_hub.url, raw_hub.identity, answer)
    peer = await raw_hub.peers.get()
    await peer.send(dialect.around(encode(FrameType.PING, 0, PING_BODY.pack(b"8 octets", 1))))
    assert (await peer.next(FrameType.PONG)).payload == PING_BODY.pack(b"8 octets", 1)
    await peer.send(dialect.frame(FrameType.COMMAND, 0, {"job": "j", "action": "load", "model": "m"}))
    assert (await node.commands.get()).job == "j"
    if dialect.ahead:
        await peer.send(dialect.frame(FrameType.NOTICE, 0, {"draining": True}))
        assert await node.notices.get() == (1, Notice(draining=True))
    request = {"uid": "r", "generation": 1, "method": "POST", "path": "/", "headers": []}
    await peer.send(dialect.frame(FrameType.OPEN, 1, request | {"deadline": 1e12, "ticket": "t"}))
    await peer.send(dialect.around(encode(FrameType.CREDIT, 1, CREDIT_OFFSET.pack(1000))))
    await peer.send(dialect.around(encode(FrameType.DATA, 1, b"question", flags=FLAG_FIN)))
    assert msgspec.msgpack.decode((await peer.next(FrameType.HEAD)).payload)["status"] == 200
    data = await peer.next(FrameType.DATA)
    assert (data.payload, data.flags) == (b"whole: question", FLAG_FIN)
    farewell = {"reason": "update", "reconnect_in": 60.0, "deadline": 9.0, "last_stream": 1}
    await peer.send(dialect.frame(FrameType.GOAWAY, 0, farewell))
    await node.client.session.leave_asked.wait()
    assert node.client.session.close_reason is None
