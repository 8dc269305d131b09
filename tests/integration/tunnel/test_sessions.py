"""What only shows when one end misbehaves: raw frames on one side of a memory pair."""

import asyncio
import gc

import pytest

from tunnel import carrier
from tunnel.channel import memory_pair
from tunnel.errors import ChannelClosed, ResetCode, StreamReset
from tunnel.frames import Frame, FrameType, decode, encode
from tunnel.liveness import LivenessTimes
from tunnel.messages import Goaway, Open, Status, decode_message, encode_message
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.session import HubSession, NodeSession

NAMES = {"node_id": "node_a", "instance_id": "inst_1", "hub_id": "hub_test"}
STATUS = Status(agent="test", accepting=True, devices=(), replicas=(), models=())


@pytest.fixture
async def raw_node():
    """A Hub's session and the bare channel of its node."""
    ours, theirs = memory_pair()
    now = asyncio.get_running_loop().time()
    times = LivenessTimes(ping_s=60.0, silence_s=60.0, stall_s=0.05)
    session = HubSession(ours, HubProtocol(generation=1, now=now, times=times), **NAMES)
    running = asyncio.create_task(session.run())
    yield session, theirs
    await session.close("test over")
    await running


async def next_frames(channel, kind: FrameType) -> list[Frame]:
    while True:
        found = [frame for frame in decode(await channel.receive()) if frame.type == kind]
        if found:
            return found


async def test_a_peer_that_does_not_read_is_dead_after_the_stall(raw_node, request_open) -> None:
    session, _ = raw_node
    stream = await session.open(request_open())
    other = await session.open(request_open())
    sending = [asyncio.create_task(each.send(bytes(1_000_000))) for each in (stream, other)]
    await session.closed.wait()
    assert session.close_reason == "stalled"
    for result in await asyncio.gather(*sending, return_exceptions=True):
        assert isinstance(result, StreamReset)
        assert result.code is ResetCode.SESSION_LOST


async def test_a_session_that_ends_as_a_goodbye_comes_leaves_nothing(raw_node, monkeypatch) -> None:
    """What the goodbye began is cancelled before its first step. A warning would fail this test."""
    session, node = raw_node

    def end_now(*_words: object, extra: dict[str, object], **_options: object) -> None:
        if extra["event"] == "goaway_received":
            closing = session.close("at that instant")
            closing.send(None)  # at once, not in a task of its own
            closing.close()

    monkeypatch.setattr(carrier.logger, "log", end_now)
    goodbye = encode_message(Goaway(reason="leaving", reconnect_in=0.0, deadline=60.0, last_stream=0))
    await node.send(encode(FrameType.GOAWAY, 0, goodbye))
    await session.closed.wait()
    assert session.close_reason == "at that instant"
    gc.collect()


async def test_orphans_are_reset_at_their_second_report(raw_node, request_open) -> None:
    session, node = raw_node
    stream = await session.open(request_open())
    await next_frames(node, FrameType.OPEN)
    stream.reset(ResetCode.CANCELLED)
    await next_frames(node, FrameType.RESET)
    report = encode(
        FrameType.STATUS, 0, encode_message(STATUS).replace(b"\xa7streams\x90", b"\xa7streams\x91\x01")
    )
    await node.send(report)
    await session.goaway("marker", deadline=30.0)
    (marker,) = decode(await node.receive())
    assert decode_message(Goaway, marker.payload).reason == "marker"  # and no RESET before it
    await node.send(report)
    (reset,) = await next_frames(node, FrameType.RESET)
    assert reset.stream == 1


async def test_a_violation_closes_with_1002(raw_node) -> None:
    session, node = raw_node
    await node.send(b"junk")
    await session.closed.wait()
    with pytest.raises(ChannelClosed) as caught:
        await node.receive()
    assert caught.value.code == 1002
    assert session.close_reason == "protocol violation"


async def test_a_failing_callback_ends_the_session_loudly(caplog) -> None:
    ours, theirs = memory_pair()
    protocol = NodeProtocol(generation=1, now=asyncio.get_running_loop().time())

    def broken() -> Status:
        raise ZeroDivisionError

    async def handler(stream) -> None:
        raise AssertionError

    session = NodeSession(ours, protocol, handler=handler, status=broken, **NAMES)
    assert await session.run() == "internal error"
    assert any(getattr(record, "event", "") == "session_task_failed" for record in caplog.records)
    with pytest.raises(ChannelClosed) as caught:
        await theirs.receive()
    assert caught.value.code == 1011


async def test_goaway_on_a_closed_session_does_nothing(raw_node) -> None:
    session, _ = raw_node
    await session.close("done")
    await session.goaway("late")
    assert session.close_reason == "done"


async def test_a_handler_cancelled_from_inside_leaves_no_stream_behind(request_open) -> None:
    """A CancelledError that nobody asked for (an awaited task was cancelled) ends the stream too."""
    ours, theirs = memory_pair()
    protocol = NodeProtocol(generation=1, now=asyncio.get_running_loop().time())

    async def handler(stream) -> None:
        raise asyncio.CancelledError

    session = NodeSession(ours, protocol, handler=handler, status=lambda: STATUS, **NAMES)
    running = asyncio.create_task(session.run())
    request: Open = request_open(window=1000)
    await theirs.send(encode(FrameType.OPEN, 1, encode_message(request)))
    (reset,) = await next_frames(theirs, FrameType.RESET)
    assert reset.stream == 1
    await session.close("done")
    await running
