"""Row "malformed frames, credit overflow, over-send, reset flood": such a node's session ends, no other."""

import asyncio
import tracemalloc

import pytest
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode

from tunnel.errors import ResetCode, StreamReset
from tunnel.flow import INITIAL_WINDOW
from tunnel.frames import (
    CREDIT_OFFSET,
    FLAG_FIN,
    MAX_DATA_BYTES,
    MAX_MESSAGE_BYTES,
    PING_BODY,
    SEND_MESSAGE_BYTES,
    FrameType,
    encode,
)
from tunnel.messages import MAX_CONTROL_BYTES, Goaway, Head, Open, Reset, encode_message

MIB = 1024 * 1024
OK = encode(FrameType.HEAD, 1, encode_message(Head(status=200, headers=())))
RESET = encode(FrameType.RESET, 1, encode_message(Reset(code=0)))
FULL_FRAME = encode(FrameType.DATA, 1, bytes(MAX_DATA_BYTES))
REQUEST = Open(uid="r", generation=1, method="GET", path="/", headers=(), deadline=0.0, ticket="")

ATTACKS: dict[str, list[bytes | str]] = {
    "junk": [b"junk"],
    "text": ["text"],
    "a frame cut short": [OK[:-1]],
    "an unknown type": [encode(0x7F)],
    "a frame the wrong way": [encode(FrameType.OPEN, 1, encode_message(REQUEST))],
    "PONG of another generation": [encode(FrameType.PONG, 0, PING_BODY.pack(bytes(8), 99))],
    "a HEAD that is none": [encode(FrameType.HEAD, 1, b"\xc1")],
    "deep nesting": [encode(FrameType.STATUS, 0, b"\x91" * MAX_CONTROL_BYTES)],
    "data before HEAD": [FULL_FRAME],
    "data for a stream that never was": [encode(FrameType.DATA, 7, b"x")],
    "credit beyond reason": [encode(FrameType.CREDIT, 1, CREDIT_OFFSET.pack(2**64 - 1))],
    "more than its credit": [OK, *[FULL_FRAME] * (INITIAL_WINDOW // MAX_DATA_BYTES), encode(0x12, 1, b"x")],
    "a flood of resets": [RESET * 100] * 4,
    "a control payload too large": [encode(FrameType.STATUS, 0, bytes(MAX_CONTROL_BYTES + 1))],
    "a frame too large": [OK, encode(FrameType.DATA, 1, bytes(MAX_DATA_BYTES + 1))],
}


@pytest.fixture
async def neighbour(start_hub, start_node, request_open):
    """A Hub, an honest node of it, and a stream of that node which is under way."""
    release = asyncio.Event()

    async def handler(stream) -> None:
        await stream.send_head(Head(status=200, headers=()))
        await release.wait()
        await stream.send(b"whole", fin=True)

    hub_side = await start_hub()
    start_node(hub_side.url, hub_side.know("node_b"), handler)
    session = await hub_side.sessions.get()
    stream = await session.open(request_open("neighbour"))
    await stream.head()
    yield hub_side
    release.set()
    assert await stream.receive() == b"whole", "the neighbour noticed"
    assert session.close_reason is None


@pytest.mark.parametrize("attack", ATTACKS)
async def test_a_node_that_breaks_the_rules_ends_its_own_session_only(
    neighbour, raw_node, request_open, read_all, attack
) -> None:
    peer, session = await raw_node(neighbour)
    stream = await session.open(request_open())
    for message in ATTACKS[attack]:
        await peer.send(message)
    assert await peer.closing_code() == 1002
    await session.closed.wait()
    assert session.close_reason == "protocol violation"
    assert await neighbour.closed.get() is session
    with pytest.raises(StreamReset):
        await read_all(stream)
    stream.reset(ResetCode.CANCELLED)
    assert neighbour.server._budget.reserved == INITIAL_WINDOW, "the neighbour's, and nothing else"


async def test_an_oversized_message_is_refused_unread(neighbour, raw_node) -> None:
    peer, session = await raw_node(neighbour)
    await peer.send(bytes(MAX_MESSAGE_BYTES + 1))
    assert await peer.closing_code() == 1009
    await session.closed.wait()


async def test_who_waits_for_what_came_before_a_violation_hears_of_it(
    neighbour, raw_node, request_open
) -> None:
    """The whole answer and then junk, in one message."""
    peer, session = await raw_node(neighbour)
    stream = await session.open(request_open())
    await stream.send(b"", fin=True)
    await peer.next(FrameType.DATA)
    await peer.send(OK + encode(FrameType.DATA, 1, b"whole", flags=FLAG_FIN) + b"junk")
    await session.closed.wait()
    assert (await stream.head()).status == 200
    assert await stream.receive() == b"whole"
    assert stream.finished


async def test_many_small_frames_take_no_more_memory_than_their_window(
    neighbour, raw_node, request_open
) -> None:
    """A window's worth of two bytes each, to a stream that nobody reads: 131072 pieces."""
    peer, session = await raw_node(neighbour)
    stream = await session.open(request_open())
    await peer.send(OK)
    await stream.head()
    small = encode(FrameType.DATA, 1, b"xx")
    count = INITIAL_WINDOW // 2
    tracemalloc.start()
    try:
        while count:
            together = min(count, SEND_MESSAGE_BYTES // len(small))
            await peer.send(small * together)
            count -= together
        while stream._state.window.received < INITIAL_WINDOW:
            await asyncio.sleep(0)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 4 * INITIAL_WINDOW
    assert await stream.receive() == b"x" * INITIAL_WINDOW


@pytest.mark.parametrize("kind", ["empty fragments", "websocket pings"])
async def test_a_flood_below_the_protocol_is_bounded(neighbour, raw_node, kind) -> None:
    """Frames of the websocket itself, by which no message comes: they end the session or cost nothing."""
    peer, session = await raw_node(neighbour)
    begin = WebSocketFrame(Opcode.BINARY, b"x", fin=False).serialize(mask=True)
    more = WebSocketFrame(
        Opcode.CONT if kind == "empty fragments" else Opcode.PING, b"", fin=kind != "empty fragments"
    )
    transport = peer.connection.transport
    transport.write(begin)
    flood = more.serialize(mask=True) * 10_000
    tracemalloc.start()
    try:
        for _ in range(30):
            if not transport.is_closing():
                transport.write(flood)
            await asyncio.sleep(0.01)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * MIB
    await session.close("test over")


async def test_a_node_that_says_goaway_and_stays_is_ended_at_its_deadline(
    neighbour, raw_node, request_open
) -> None:
    peer, session = await raw_node(neighbour)
    stream = await session.open(request_open())
    goaway = Goaway(reason="leaving", reconnect_in=0.0, deadline=0.05, last_stream=0)
    for _ in range(100):
        await peer.send(encode(FrameType.GOAWAY, 0, encode_message(goaway)))
    with pytest.raises(StreamReset):
        await stream.head()
    assert await peer.closing_code() == 1000
    assert session.close_reason == "drained"
