"""The first three frames of a connection: CHALLENGE, HELLO, WELCOME.

Owns what must be said and proved before a session stands. Must not know how the connection came
about or where keys and generations are kept.
"""

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tunnel.channel import Channel
from tunnel.errors import ChannelClosed, HandshakeRefused, ProtocolViolation
from tunnel.frames import Frame, FrameType, decode, encode
from tunnel.identity import NodeIdentity, sign_hello, verify_hello
from tunnel.messages import (
    Challenge,
    Hello,
    Message,
    Welcome,
    decode_message,
    encode_message,
    hello_digest,
)
from tunnel.protocol import MAX_STREAMS

SUBPROTOCOL = "porten-tunnel.v1"
VERSION = 1
NODE_HEADER = "X-Porten-Node"
NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 4 * 1024  # of a message before the peer is known
REFUSED_CLOSURE = 4401  # websocket close code: the handshake was refused for good
BUSY_CLOSURE = 4503  # websocket close code: come back later

M = TypeVar("M", bound=Message)


async def challenge(
    channel: Channel,
    *,
    hub_id: str,
    node_id: str,
    host_names: Sequence[str],
    public_keys: Callable[[str], Awaitable[tuple[Ed25519PublicKey, ...]]],
) -> Hello:
    """Let a node prove who it is (Hub).

    Args:
        channel: To the node.
        hub_id: Ours.
        node_id: Who the node said it was when it dialled.
        host_names: What a node may have dialled; a name without a port stands for any port.
        public_keys: Gives a node's active keys.

    Raises:
        HandshakeRefused: the proof fails.
        ProtocolViolation: what came was no HELLO.
    """
    nonce = os.urandom(NONCE_BYTES)
    await _send(channel, FrameType.CHALLENGE, Challenge(nonce=nonce, hub_id=hub_id))
    hello = await _expect(channel, FrameType.HELLO, Hello, limit=MAX_HANDSHAKE_BYTES)
    if VERSION not in hello.versions:
        raise HandshakeRefused(426, reason="no common version")
    if hello.node_id != node_id or not host_matches(hello.host, host_names):
        raise HandshakeRefused(401, reason="signed for another node or host")
    keys = await public_keys(hello.node_id)
    genuine = verify_hello(
        keys,
        hello.signature,
        nonce=nonce,
        hub_host=hello.host,
        node_id=hello.node_id,
        instance_id=hello.instance_id,
        digest=hello_digest(hello),
    )
    if not genuine:
        raise HandshakeRefused(401, reason="signature")
    return hello


async def welcome(channel: Channel, message: Welcome) -> None:
    """Tell the node that its session stands (Hub)."""
    await _send(channel, FrameType.WELCOME, message)


async def introduce(
    channel: Channel,
    *,
    identity: NodeIdentity,
    instance_id: str,
    host: str,
    agent: str = "",
    max_streams: int = MAX_STREAMS,
) -> Welcome:
    """Prove who we are and wait to be welcomed (node).

    Raises:
        HandshakeRefused: the Hub would not have us.
        ChannelClosed: the connection ended.
        ProtocolViolation: the Hub spoke out of turn.
    """
    try:
        asked = await _expect(channel, FrameType.CHALLENGE, Challenge)
        hello = Hello(
            node_id=identity.node_id,
            instance_id=instance_id,
            host=host,
            versions=(VERSION,),
            agent=agent,
            max_streams=max_streams,
        )
        await _send(channel, FrameType.HELLO, sign(hello, asked.nonce, identity))
        granted = await _expect(channel, FrameType.WELCOME, Welcome)
    except ChannelClosed as closed:
        raise _refusal(closed) from closed
    if not (math.isfinite(granted.heartbeat_s) and 0 < granted.heartbeat_s <= 300):
        raise ProtocolViolation(f"heartbeat of {granted.heartbeat_s} s")
    return granted


def sign(hello: Hello, nonce: bytes, identity: NodeIdentity) -> Hello:
    """Give the HELLO with its signature filled in."""
    signature = sign_hello(
        identity.private_key,
        nonce=nonce,
        hub_host=hello.host,
        node_id=hello.node_id,
        instance_id=hello.instance_id,
        digest=hello_digest(hello),
    )
    return msgspec.structs.replace(hello, signature=signature)


def host_matches(host: str, names: Sequence[str]) -> bool:
    """Say whether a dialled host[:port] is one of ours."""
    dialled = host.lower()
    name, _, port = dialled.rpartition(":")
    bare = name if name and port.isdigit() else dialled
    return any(known.lower() in (dialled, bare) for known in names)


def _refusal(closed: ChannelClosed) -> Exception:
    if closed.code == REFUSED_CLOSURE:
        return HandshakeRefused(401, reason=closed.reason)
    if closed.code == BUSY_CLOSURE:
        return HandshakeRefused(503, reason=closed.reason)
    return closed


async def _send(channel: Channel, kind: FrameType, message: Message) -> None:
    await channel.send(encode(kind, payload=encode_message(message)))


async def _expect(channel: Channel, kind: FrameType, shape: type[M], *, limit: int | None = None) -> M:
    """Receive a message that holds exactly one frame of the given type."""
    data = await channel.receive()
    if limit is not None and len(data) > limit:
        raise ProtocolViolation(f"{len(data)} bytes before authentication")
    frames: list[Frame] = list(decode(data))
    if len(frames) != 1 or frames[0].type != kind:
        raise ProtocolViolation(f"something else than {kind.name}")
    return decode_message(shape, frames[0].payload)
