import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunnel.errors import ProtocolViolation, ResetCode, StreamReset, TooManyStreams
from tunnel.events import (
    CreditReceived,
    DataReceived,
    EventReceived,
    GoawayReceived,
    HeadReceived,
    ResetReceived,
    StatusReceived,
    StreamOpened,
)
from tunnel.frames import (
    CREDIT_OFFSET,
    FLAG_FIN,
    FLAG_TRAILERS,
    MAX_DATA_BYTES,
    PING_BODY,
    FrameType,
    decode,
    encode,
)
from tunnel.messages import Event, Goaway, Head, Reset, Status, Trailers, encode_message
from tunnel.protocol import MAX_PENDING_BYTES, TunnelProtocol

OK = Head(status=200, headers=())
STATUS = Status(agent="a", accepting=True, devices=(), replicas=(), models=())


def violates(protocol: TunnelProtocol, message: bytes, now: float = 100.0) -> ProtocolViolation:
    with pytest.raises(ProtocolViolation) as caught:
        protocol.receive(message, now)
    assert not caught.value.local
    return caught.value


def reset_frame(stream: int, code: int = 0) -> bytes:
    return encode(FrameType.RESET, stream, encode_message(Reset(code=code)))


def test_an_exchange(pair, request_open) -> None:
    here = pair.hub.open_stream(request_open())
    pair.hub.send_data(here, b"question", fin=True)
    opened, data = pair.to_node()
    assert isinstance(opened, StreamOpened)
    there = opened.stream
    assert there.open == request_open()
    assert data == DataReceived(there, b"question", True)
    pair.node.send_head(there, OK)
    pair.node.send_data(there, b"answer", fin=True, trailers=Trailers(outcome="stop"))
    head, data = pair.to_hub()
    assert head == HeadReceived(here, OK)
    assert data == DataReceived(here, b"answer", True)
    assert here.trailers == Trailers(outcome="stop")
    assert not pair.hub.streams
    assert not pair.node.streams


def test_open_head_and_data_share_a_message(pair, request_open) -> None:
    here = pair.hub.open_stream(request_open())
    pair.hub.send_data(here, b"question", fin=True)
    kinds = [frame.type for frame in decode(pair.hub.data_to_send(100.0))]
    assert kinds == [FrameType.OPEN, FrameType.DATA]


def test_the_hub_opens_and_the_node_does_not(pair, request_open) -> None:
    assert not hasattr(pair.node, "open_stream")
    violates(pair.hub, encode(FrameType.OPEN, 1, encode_message(request_open())))


def test_stream_ids_only_rise(pair, request_open) -> None:
    payload = encode_message(request_open())
    pair.node.receive(encode(FrameType.OPEN, 5, payload), 100.0)
    violates(pair.node, encode(FrameType.OPEN, 5, payload))
    violates(pair.node, encode(FrameType.OPEN, 4, payload))
    violates(pair.node, encode(FrameType.OPEN, 0, payload))


def test_the_stream_limit_holds_on_both_sides(new_pair, request_open) -> None:
    pair = new_pair(max_streams=2)
    pair.opened()
    pair.opened()
    with pytest.raises(TooManyStreams):
        pair.hub.open_stream(request_open())
    pair.node.receive(encode(FrameType.OPEN, 3, encode_message(request_open())), 100.0)
    assert len(pair.node.streams) == 2
    refusal = next(decode(pair.node.data_to_send(100.0)))
    assert (refusal.type, refusal.stream) == (FrameType.RESET, 3)


def test_a_reset_makes_room_at_once(new_pair) -> None:
    pair = new_pair(max_streams=1)
    for _ in range(3):
        here, _there = pair.opened()
        pair.hub.reset(here, ResetCode.CANCELLED)


def test_sending_past_the_credit_ends_the_session(pair) -> None:
    _, there = pair.opened(window=1000)
    pair.node.send_head(there, OK)
    assert pair.node.room(there) == 1000
    with pytest.raises(ProtocolViolation) as caught:
        pair.node.send_data(there, bytes(1001))
    assert caught.value.local
    pair.node.send_data(there, bytes(1000))
    pair.to_hub()
    violates(pair.hub, encode(FrameType.DATA, there.id, b"x"))


def test_credit_is_given_on_consumption(pair) -> None:
    here, there = pair.opened(window=1000)
    pair.node.send_head(there, OK)
    pair.node.send_data(there, bytes(1000))
    pair.to_hub()
    assert pair.node.room(there) == 0
    there.blocked = True
    assert not pair.hub.consumed(here, 499)
    assert pair.hub.consumed(here, 1)
    assert pair.to_node() == [CreditReceived(there)]
    assert pair.node.room(there) == 500


def test_no_credit_after_fin(pair) -> None:
    here, there = pair.opened(window=1000)
    pair.node.send_head(there, OK)
    pair.node.send_data(there, bytes(1000), fin=True)
    pair.to_hub()
    assert not pair.hub.consumed(here, 1000)


def test_a_sender_queues_at_most_its_buffer(pair) -> None:
    here, _ = pair.opened()
    pair.hub.send_data(here, bytes(MAX_PENDING_BYTES))
    assert pair.hub.room(here) == 0
    here.blocked = True
    pair.hub.data_to_send(100.0)
    assert pair.hub.take_unblocked() == [here]
    assert pair.hub.take_unblocked() == []
    assert pair.hub.room(here) == MAX_DATA_BYTES


def test_late_frames_of_a_reset_stream_are_dropped_for_a_minute(pair) -> None:
    here, there = pair.opened()
    pair.node.send_head(there, OK)
    pair.node.send_data(there, b"late")
    late = pair.node.data_to_send(100.0)
    pair.hub.reset(here, ResetCode.CANCELLED)
    assert pair.hub.receive(late, 159.0) == []
    violates(pair.hub, late, now=161.0)


def test_frames_after_the_orderly_end_are_violations_but_credit_and_reset_may_cross_it(pair) -> None:
    here, there = pair.opened()
    pair.hub.send_data(here, b"", fin=True)
    pair.to_node()
    pair.node.send_head(there, OK)
    pair.node.send_data(there, b"", fin=True)
    pair.to_hub()
    assert not pair.node.streams
    credit = encode(FrameType.CREDIT, 1, CREDIT_OFFSET.pack(10))
    assert pair.node.receive(credit + reset_frame(1), 100.0) == []
    violates(pair.node, encode(FrameType.DATA, 1, b"x"))


def test_a_reset_ends_both_halves_on_both_sides(pair) -> None:
    here, there = pair.opened()
    pair.hub.send_data(here, bytes(50_000))
    assert pair.hub.reset(here, ResetCode.DEADLINE, "late")
    assert not pair.hub.reset(here, ResetCode.DEADLINE)
    assert pair.to_node() == [ResetReceived(there, ResetCode.DEADLINE, "late")]
    for protocol, stream in ((pair.hub, here), (pair.node, there)):
        with pytest.raises(StreamReset):
            protocol.send_data(stream, b"x")
    with pytest.raises(StreamReset):
        pair.node.send_head(there, OK)
    assert not pair.hub.wants_to_send
    assert not pair.node.wants_to_send


def test_a_reset_flood_ends_the_session(pair, request_open) -> None:
    payload = encode_message(request_open())
    for stream in range(1, 100 + 256 + 1):
        pair.node.receive(encode(FrameType.OPEN, stream, payload) + reset_frame(stream), 100.0)
    violates(pair.node, encode(FrameType.OPEN, 357, payload) + reset_frame(357))


def test_refusing_many_requests_is_no_flood(pair) -> None:
    """A full node refuses as fast as the Hub asks; the Hub's own pace bounds that."""
    for _ in range(600):
        _, there = pair.opened()
        pair.node.reset(there, ResetCode.OVERLOADED)
        (event,) = pair.to_hub()
        assert event.code is ResetCode.OVERLOADED
    pair.hub.receive(reset_frame(1) * 356, 100.0)
    violates(pair.hub, reset_frame(1))


@pytest.mark.parametrize("kind", [FrameType.STATUS, FrameType.EVENT])
def test_a_flood_of_reports_ends_the_session(pair, kind) -> None:
    report = {
        FrameType.STATUS: STATUS,
        FrameType.EVENT: Event(job="job", phase="loading", done=0, total=0),
    }[kind]
    frame = encode(kind, payload=encode_message(report))
    for _ in range(100):
        pair.hub.receive(frame * 6, 100.0)
    for second in range(1, 10):
        pair.hub.receive(frame * 300, 100.0 + second)
    violates(pair.hub, frame, now=109.0)


def test_a_draining_node_refuses(pair, request_open) -> None:
    pair.node.send_goaway(Goaway(reason="update", reconnect_in=0, deadline=30, last_stream=0))
    assert [type(event) for event in pair.to_hub()] == [GoawayReceived]
    pair.hub.open_stream(request_open())
    assert pair.to_node() == []
    (event,) = pair.to_hub()
    assert event.code is ResetCode.REFUSED


def test_a_discarding_stream_takes_everything_and_tells_nobody(pair) -> None:
    here, there = pair.opened()
    pair.node.discard(there, 0)
    left = 3_000_000
    while left:
        count = min(left, pair.hub.room(here))
        assert count > 0
        left -= count
        pair.hub.send_data(here, bytes(count), fin=not left)
        assert pair.to_node() == []
        pair.to_hub()


def test_orphans_are_reset_only_if_they_are(pair) -> None:
    here, _ = pair.opened()
    pair.hub.reset_orphan(here.id)
    pair.hub.reset_orphan(99)
    assert not pair.hub.wants_to_send
    pair.hub.streams.clear()
    pair.hub.reset_orphan(here.id)
    assert [event.code for event in pair.to_node()] == [ResetCode.CANCELLED]


def test_reports_and_jobs_go_their_way_only(pair) -> None:
    pair.node.send_status(STATUS)
    pair.node.send_event(Event(job="j", phase="p", done=0, total=0))
    assert [type(event) for event in pair.to_hub()] == [StatusReceived, EventReceived]
    violates(pair.node, encode(FrameType.STATUS, 0, encode_message(STATUS)))


def test_a_peer_that_pings_and_never_reads_is_cut_off(pair) -> None:
    ping = encode(FrameType.PING, 0, PING_BODY.pack(bytes(8), 7))
    for _ in range(9):
        pair.node.receive(ping * 4000, 100.0)
    violates(pair.node, ping * 4000)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unknown type", encode(0x7F)),
        ("handshake again", encode(FrameType.WELCOME)),
        ("ping of another generation", encode(FrameType.PING, 0, PING_BODY.pack(bytes(8), 8))),
        ("short ping", encode(FrameType.PING, 0, b"x")),
        ("data of no stream", encode(FrameType.DATA, 0, b"x")),
        ("data of a stream never opened", encode(FrameType.DATA, 9, b"x")),
        ("empty data", encode(FrameType.DATA, 1)),
        ("a large frame", encode(FrameType.DATA, 1, bytes(MAX_DATA_BYTES + 1))),
        ("trailers without fin", encode(FrameType.DATA, 1, b"xx", flags=FLAG_TRAILERS, aux=1)),
        ("trailers longer than the frame", encode(FrameType.DATA, 1, b"x", flags=3, aux=2)),
        ("trailers that are none", encode(FrameType.DATA, 1, b"x", flags=3, aux=1)),
        ("short credit", encode(FrameType.CREDIT, 1, b"x")),
        ("credit beyond reason", encode(FrameType.CREDIT, 1, b"\xff" * 8)),
        ("reset of no stream", encode(FrameType.RESET, 0, encode_message(Reset(code=0)))),
        ("reset that is none", encode(FrameType.RESET, 1, b"\xc1")),
        ("head to the node", encode(FrameType.HEAD, 1, encode_message(OK))),
    ],
)
def test_violations_by_the_hub(pair, name: str, message: bytes) -> None:
    pair.opened()
    violates(pair.node, message)


def test_a_node_must_send_head_once_and_first(pair) -> None:
    _, there = pair.opened()
    violates(pair.hub, encode(FrameType.DATA, there.id, b"x"))
    head = encode(FrameType.HEAD, there.id, encode_message(OK))
    pair.hub.receive(head, 100.0)
    violates(pair.hub, head)


def test_unknown_high_types_are_ignored(pair) -> None:
    assert pair.hub.receive(encode(0x80, 5, b"?") + encode(0xFF), 100.0) == []


def test_what_came_before_a_violation_has_happened(pair) -> None:
    """Else whoever waits for the end of that stream would wait for ever, and its bytes stay in the budget."""
    here, there = pair.opened()
    pair.hub.send_data(here, b"", fin=True)
    pair.to_node()
    pair.node.send_head(there, OK)
    pair.node.send_data(there, b"whole", fin=True)
    violation = violates(pair.hub, pair.node.data_to_send(100.0) + b"junk")
    assert violation.before == [HeadReceived(here, OK), DataReceived(here, b"whole", True)]
    assert not pair.hub.streams


@pytest.mark.parametrize("window", [-1, 16 * 1024 * 1024 + 1, 2**62])
def test_an_open_with_a_window_beyond_reason_is_a_violation(pair, request_open, window: int) -> None:
    payload = encode_message(request_open(window=window))
    violates(pair.node, encode(FrameType.OPEN, 1, payload))


def test_data_after_fin_is_a_violation(pair) -> None:
    _, there = pair.opened()
    pair.node.receive(encode(FrameType.DATA, there.id, b"x", flags=FLAG_FIN), 100.0)
    violates(pair.node, encode(FrameType.DATA, there.id, b"y"))


frame_bytes = st.builds(
    lambda kind, flags, aux, stream, payload: encode(kind, stream, payload, flags=flags, aux=aux),
    st.sampled_from([*FrameType, 0x42, 0x99]),
    st.integers(0, 3),
    st.integers(0, 40),
    st.integers(0, 4),
    st.binary(max_size=60) | st.sampled_from([encode_message(OK), encode_message(Reset(code=3)), bytes(8)]),
)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(to_hub=st.booleans(), chunks=st.lists(frame_bytes | st.binary(max_size=40), max_size=12))
def test_no_input_does_worse_than_a_violation(new_pair, to_hub: bool, chunks: list[bytes]) -> None:
    pair = new_pair()
    pair.opened()
    protocol = pair.hub if to_hub else pair.node
    with contextlib.suppress(ProtocolViolation):
        for chunk in chunks:
            protocol.receive(chunk, 100.0)
            protocol.data_to_send(100.0)
