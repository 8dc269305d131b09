"""Row "malformed frames, credit overflow, over-send, reset flood": such a node's session ends, no other."""

import asyncio
import sys

import pytest
from websockets.frames import Frame as WebSocketFrame
from websockets.frames import Opcode
from websockets.protocol import State

from tunnel.channel import MAX_UNSENT_BYTES
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
from tunnel.handshake import BUSY_CLOSURE, signed_hello
from tunnel.messages import (
    MAX_CONTROL_BYTES,
    Challenge,
    Goaway,
    Head,
    Hello,
    Open,
    Reset,
    decode_message,
    encode_message,
)

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
    while count:
        together = min(count, SEND_MESSAGE_BYTES // len(small))
        await peer.send(small * together)
        count -= together
    while stream._state.window.received < INITIAL_WINDOW:
        await asyncio.sleep(0)
    held = sys.getsizeof(stream._inbox) + sum(map(sys.getsizeof, stream._inbox))
    assert held < 1.5 * INITIAL_WINDOW
    assert await stream.receive() == b"x" * INITIAL_WINDOW


FLOODS = {
    "empty fragments": WebSocketFrame(Opcode.CONT, b"", fin=False).serialize(mask=True),
    "websocket pings": WebSocketFrame(Opcode.PING, bytes(100)).serialize(mask=True),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_below_the_protocol_is_hung_up_on(neighbour, raw_node, kind) -> None:
    """Frames of the websocket itself, by which no message ever comes; nobody reads the answers to pings."""
    peer, session = await raw_node(neighbour)
    transport = peer.connection.transport
    if kind == "websocket pings":
        transport.pause_reading()
    transport.write(WebSocketFrame(Opcode.BINARY, b"x", fin=False).serialize(mask=True))
    while session.close_reason is None:
        if peer.connection.state is State.OPEN and transport.get_write_buffer_size() < MIB:
            transport.write(FLOODS[kind] * 100)
        unsent = session._channel._connection.transport.get_write_buffer_size()
        assert unsent < 2 * MAX_UNSENT_BYTES
        await asyncio.sleep(0)
    transport.abort()
    await session.closed.wait()


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


async def test_who_was_still_introducing_itself_when_the_hub_began_to_leave_is_sent_away(
    start_hub, dial_raw
) -> None:
    """It would be a session that nobody tells that it is to end."""
    hub_side = await start_hub()
    identity = hub_side.know()
    peer = await dial_raw(hub_side)
    nonce = decode_message(Challenge, (await peer.next(FrameType.CHALLENGE)).payload).nonce
    await hub_side.server.drain(30)
    host = f"127.0.0.1:{hub_side.server.port}"
    await peer.send(signed_hello(Hello(node_id="node_a", instance_id="raw", host=host), nonce, identity))
    assert await peer.closing_code() == BUSY_CLOSURE
    assert not hub_side.accounts.admitted
