"""The first three frames of a connection: CHALLENGE, HELLO, WELCOME.

Owns what must be said and proved before a session stands. Must not know how the connection came
about or where keys and generations are kept.
"""

import math
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tunnel.channel import Channel
from tunnel.errors import ChannelClosed, HandshakeRefused, ProtocolViolation
from tunnel.frames import MAX_MESSAGE_BYTES, Frame, FrameType, decode, encode
from tunnel.identity import NodeIdentity, sign_hello, verify_hello
from tunnel.messages import (
    Challenge,
    Hello,
    Message,
    Welcome,
    decode_message,
    encode_message,
)
from tunnel.protocol import MAX_STREAMS

SUBPROTOCOL = "porten-tunnel.v1"
VERSION = 1
NODE_HEADER = "X-Porten-Node"
NONCE_BYTES = 32
MAX_HANDSHAKE_BYTES = 4 * 1024  # of a message before the peer is known
REFUSED_CLOSURE = 4401  # websocket close code: the handshake was refused for good
QUARANTINED_CLOSURE = 4423  # websocket close code: two machines use this credential
QUARANTINED_STATUS = 423
BUSY_CLOSURE = 4503  # websocket close code: come back later


@dataclass(frozen=True, slots=True)
class Proof:
    """What a node said, and the one of its keys with which it proved to be that node."""

    hello: Hello
    key: Ed25519PublicKey


async def challenge(
    channel: Channel,
    *,
    hub_id: str,
    node_id: str,
    host_names: Sequence[str],
    public_keys: Callable[[str], Awaitable[tuple[Ed25519PublicKey, ...]]],
) -> Proof:
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
    frame = await _expect(channel, FrameType.HELLO, limit=MAX_HANDSHAKE_BYTES)
    split = max(0, len(frame.payload) - frame.aux)
    signed, signature = frame.payload[:split], frame.payload[split:]
    hello = decode_message(Hello, signed)
    if VERSION not in hello.versions:
        raise HandshakeRefused(426, reason="no common version")
    if hello.node_id != node_id or not host_matches(hello.host, host_names):
        raise HandshakeRefused(401, reason="signed for another node or host")
    key = verify_hello(await public_keys(node_id), signature, **_signed(hello, nonce, signed))
    if key is None:
        raise HandshakeRefused(401, reason="signature")
    return Proof(hello, key)


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
    replaces: int = 0,
    features: tuple[str, ...] = (),
) -> Welcome:
    """Prove who we are and wait to be welcomed (node).

    Raises:
        HandshakeRefused: the Hub would not have us.
        ChannelClosed: the connection ended.
        ProtocolViolation: the Hub spoke out of turn.
    """
    try:
        frame = await _expect(channel, FrameType.CHALLENGE)
        hello = Hello(
            node_id=identity.node_id,
            instance_id=instance_id,
            host=host,
            versions=(VERSION,),
            features=features,
            agent=agent,
            max_streams=max_streams,
            replaces=replaces,
        )
        asked = decode_message(Challenge, frame.payload)
        await channel.send(signed_hello(hello, asked.nonce, identity))
        frame = await _expect(channel, FrameType.WELCOME)
    except ChannelClosed as closed:
        raise _refusal(closed) from closed
    granted = decode_message(Welcome, frame.payload)
    if not (math.isfinite(granted.heartbeat_s) and 0 < granted.heartbeat_s <= 300):
        raise ProtocolViolation(f"heartbeat of {granted.heartbeat_s} s")
    return granted


def signed_hello(hello: Hello, nonce: bytes, identity: NodeIdentity) -> bytes:
    """Give the HELLO frame: the message, then `aux` bytes of signature over it."""
    payload = encode_message(hello)
    signature = sign_hello(identity.private_key, **_signed(hello, nonce, payload))
    return encode(FrameType.HELLO, payload=payload + signature, aux=len(signature))


class _Signed(TypedDict):
    nonce: bytes
    hub_host: str
    node_id: str
    instance_id: str
    hello: bytes


def _signed(hello: Hello, nonce: bytes, payload: bytes) -> _Signed:
    """Name what the signature covers."""
    return {
        "nonce": nonce,
        "hub_host": hello.host,
        "node_id": hello.node_id,
        "instance_id": hello.instance_id,
        "hello": payload,
    }


def host_matches(host: str, names: Sequence[str]) -> bool:
    """Say whether a dialled host[:port] is one of ours."""
    dialled = host.lower()
    name, _, port = dialled.rpartition(":")
    bare = name if name and port.isdigit() else dialled
    return any(known.lower() in (dialled, bare) for known in names)


def _refusal(closed: ChannelClosed) -> Exception:
    if closed.code == REFUSED_CLOSURE:
        return HandshakeRefused(401, reason=closed.reason)
    if closed.code == QUARANTINED_CLOSURE:
        return HandshakeRefused(QUARANTINED_STATUS, reason=closed.reason)
    if closed.code == BUSY_CLOSURE:
        return HandshakeRefused(503, reason=closed.reason)
    return closed


async def _send(channel: Channel, kind: FrameType, message: Message) -> None:
    await channel.send(encode(kind, payload=encode_message(message)))


async def _expect(channel: Channel, kind: FrameType, *, limit: int = MAX_MESSAGE_BYTES) -> Frame:
    """Receive a message that holds exactly one frame of the given type."""
    message = await channel.receive()
    if len(message) > limit:
        raise ProtocolViolation(f"{len(message)} bytes before authentication")
    frames = list(decode(message))
    if len(frames) != 1 or frames[0].type != kind:
        raise ProtocolViolation(f"something else than {kind.name}")
    return frames[0]
