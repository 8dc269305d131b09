from hypothesis import given
from hypothesis import strategies as st

from tunnel.flow import ReceiveWindow, SendCredit
from tunnel.frames import FLAG_FIN, MAX_DATA_BYTES, SEND_MESSAGE_BYTES, FrameType, decode, encode
from tunnel.messages import Open
from tunnel.outbox import Outbox
from tunnel.state import Half, Lane, StreamState

OPEN = Open(uid="r", generation=1, method="POST", path="/", headers=(), deadline=1.0, ticket="t")


def queue(outbox: Outbox, stream_id: int, *chunks: bytes, fin: bool = False) -> StreamState:
    stream = StreamState(stream_id, OPEN, sending=Half.BODY, window=ReceiveWindow(), credit=SendCredit())
    for chunk in chunks:
        stream.pending.append(chunk)
        stream.pending_bytes += len(chunk)
    stream.fin_pending = fin
    outbox.schedule(stream)
    return stream


def test_control_before_interactive_before_bulk() -> None:
    outbox = Outbox()
    queue(outbox, 1, b"b" * 40_000)
    queue(outbox, 2, b"token")
    outbox.add_control(encode(FrameType.PING))
    frames = list(decode(outbox.next_message()))
    assert [(frame.type, frame.stream) for frame in frames] == [
        (FrameType.PING, 0),
        (FrameType.DATA, 2),
        (FrameType.DATA, 1),
    ]
    assert len(frames[2].payload) == MAX_DATA_BYTES


def test_a_token_waits_for_one_quantum_of_bulk_only() -> None:
    outbox = Outbox()
    queue(outbox, 1, bytes(60_000))
    first = outbox.next_message()
    assert len(first) == 12 + MAX_DATA_BYTES
    queue(outbox, 2, b"token")
    assert next(decode(outbox.next_message())).stream == 2


def test_bulk_streams_take_turns() -> None:
    outbox = Outbox()
    for stream_id in (1, 2, 3):
        queue(outbox, stream_id, bytes(40_000))
    order = [next(decode(outbox.next_message())).stream for _ in range(6)]
    assert order == [1, 2, 3, 1, 2, 3]


def test_ready_chunks_of_a_stream_become_one_frame() -> None:
    outbox = Outbox()
    stream = queue(outbox, 1, b"a", b"b", b"c", fin=True)
    (frame,) = decode(outbox.next_message())
    assert frame.payload == b"abc"
    assert frame.flags == FLAG_FIN
    assert outbox.ended == [stream]
    assert stream.lane is Lane.IDLE
    assert outbox.next_message() == b""


def test_a_removed_stream_sends_nothing_more() -> None:
    outbox = Outbox()
    small, large = queue(outbox, 1, b"x"), queue(outbox, 2, bytes(50_000))
    outbox.remove(small)
    assert outbox.next_message()
    assert large.lane is Lane.BULK
    outbox.remove(large)
    assert not outbox.waiting
    assert outbox.next_message() == b""


def test_a_blocked_sender_is_reported_once() -> None:
    outbox = Outbox()
    stream = queue(outbox, 1, b"x")
    stream.blocked = True
    outbox.next_message()
    assert outbox.unblocked == [stream]
    assert not stream.blocked


@given(
    st.lists(st.tuples(st.integers(1, 6), st.lists(st.integers(1, 70_000), max_size=4)), max_size=8),
    st.lists(st.integers(0, 32_000), max_size=6),
)
def test_every_byte_leaves_once_in_order_in_bounded_messages(
    sends: list[tuple[int, list[int]]], controls: list[int]
) -> None:
    outbox = Outbox()
    expected: dict[int, bytes] = {}
    streams: dict[int, StreamState] = {}
    for count, (stream_id, sizes) in enumerate(sends):
        chunks = [bytes([count]) * size for size in sizes]
        expected[stream_id] = expected.get(stream_id, b"") + b"".join(chunks)
        if stream_id in streams:
            streams[stream_id].pending.extend(chunks)
            streams[stream_id].pending_bytes += sum(sizes)
            outbox.schedule(streams[stream_id])
        elif chunks:
            streams[stream_id] = queue(outbox, stream_id, *chunks)
    for size in controls:
        outbox.add_control(encode(FrameType.PONG, payload=bytes(size)))
    got: dict[int, bytes] = dict.fromkeys(expected, b"")
    while message := outbox.next_message():
        assert len(message) <= SEND_MESSAGE_BYTES
        for frame in decode(message):
            if frame.type == FrameType.DATA:
                assert len(frame.payload) <= MAX_DATA_BYTES
                got[frame.stream] += frame.payload
    assert got == expected
    assert outbox.control_bytes == 0
