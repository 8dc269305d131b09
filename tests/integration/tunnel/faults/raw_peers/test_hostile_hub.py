"""Row "malformed frames, credit overflow, over-send, reset flood": the node leaves such a Hub and returns."""

import asyncio

import pytest

from tunnel.backoff import Backoff
from tunnel.flow import INITIAL_WINDOW
from tunnel.frames import (
    CREDIT_OFFSET,
    MAX_DATA_BYTES,
    MAX_MESSAGE_BYTES,
    PING_BODY,
    FrameType,
    encode,
)
from tunnel.messages import MAX_CONTROL_BYTES, Goaway, Open, Reset, encode_message
from tunnel.protocol import MAX_CONTROL_BACKLOG

REQUEST = Open(
    uid="r", generation=1, method="POST", path="/", headers=(), deadline=1e12, ticket="t", window=262144
)
OPEN = encode(FrameType.OPEN, 1, encode_message(REQUEST))
PING = encode(FrameType.PING, 0, PING_BODY.pack(bytes(8), 1))
RESET = encode(FrameType.RESET, 1, encode_message(Reset(code=0)))
FULL_FRAME = encode(FrameType.DATA, 1, bytes(MAX_DATA_BYTES))
ENDLESS = Goaway(reason="never", reconnect_in=float("nan"), deadline=float("nan"), last_stream=0)

ATTACKS: dict[str, list[bytes | str]] = {
    "junk": [b"junk"],
    "junk after an OPEN": [OPEN + b"junk"],
    "text": ["text"],
    "an unknown type": [encode(0x7F)],
    "a handshake again": [encode(FrameType.WELCOME)],
    "PING of another generation": [encode(FrameType.PING, 0, PING_BODY.pack(bytes(8), 99))],
    "an id that does not rise": [OPEN, OPEN],
    "a HEAD": [OPEN, encode(FrameType.HEAD, 1, b"")],
    "credit beyond reason": [OPEN, encode(FrameType.CREDIT, 1, CREDIT_OFFSET.pack(2**64 - 1))],
    "more than its credit": [OPEN, *[FULL_FRAME] * (INITIAL_WINDOW // MAX_DATA_BYTES), encode(0x12, 1, b"x")],
    "a flood of resets": [OPEN, *[RESET * 100] * 4],
    "a control payload too large": [encode(FrameType.COMMAND, 0, bytes(MAX_CONTROL_BYTES + 1))],
}


@pytest.fixture
async def node(raw_hub, start_node):
    """A node whose handler reads nothing and says nothing until it is cancelled."""
    begun, cancelled = asyncio.Semaphore(0), asyncio.Semaphore(0)

    async def handler(stream) -> None:
        begun.release()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.release()

    side = start_node(raw_hub.url, raw_hub.identity, handler, backoff=Backoff(lambda: 0.0))
    side.begun, side.cancelled = begun, cancelled
    return side


async def is_served(peer, node) -> None:
    """The session that came next takes a stream."""
    await peer.send(OPEN)
    await node.begun.acquire()
    await peer.send(RESET)
    await node.cancelled.acquire()


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_hub_that_breaks_the_rules_is_left_and_dialled_again(raw_hub, node, attack) -> None:
    peer = await raw_hub.peers.get()
    await node.reach("connected")
    session = node.client.session
    for message in ATTACKS[attack]:
        await peer.send(message)
    assert await peer.closing_code() == 1002
    await session.closed.wait()
    assert session.close_reason == "protocol violation"
    assert not session._handlers
    while node.begun._value:
        await node.begun.acquire()
        await node.cancelled.acquire()
    await is_served(await raw_hub.peers.get(), node)
    assert node.client._budget.reserved == 0


async def test_an_oversized_message_is_refused_unread(raw_hub, node) -> None:
    peer = await raw_hub.peers.get()
    await peer.send(bytes(MAX_MESSAGE_BYTES + 1))
    assert await peer.closing_code() == 1009
    await is_served(await raw_hub.peers.get(), node)


async def test_a_hub_that_asks_and_never_reads_is_cut_off(raw_hub, node) -> None:
    """The answers to its PINGs wait here, and not for ever more of them."""
    peer = await raw_hub.peers.get()
    await node.reach("connected")
    session = node.client.session
    peer.connection.transport.pause_reading()
    while session.close_reason is None:
        await peer.send(PING * 2000)
        assert session._protocol._outbox.control_bytes <= MAX_CONTROL_BACKLOG + MAX_MESSAGE_BYTES
        await asyncio.sleep(0)
    assert session.close_reason == "protocol violation"
    peer.connection.transport.abort()
    await is_served(await raw_hub.peers.get(), node)


async def test_a_hub_whose_times_are_no_numbers_is_left_at_once(raw_hub, node) -> None:
    peer = await raw_hub.peers.get()
    await peer.send(encode(FrameType.GOAWAY, 0, encode_message(ENDLESS)))
    await peer.closing_code()
    await is_served(await raw_hub.peers.get(), node)
