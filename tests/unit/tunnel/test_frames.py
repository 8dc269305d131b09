import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ProtocolViolation, ResetCode
from tunnel.frames import FIRST_IGNORABLE_TYPE, MAX_MESSAGE_BYTES, Frame, FrameType, decode, encode

frames = st.builds(
    Frame,
    type=st.integers(0, 255),
    flags=st.integers(0, 255),
    aux=st.integers(0, 2**16 - 1),
    stream=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=300),
)


@given(st.lists(frames, max_size=8))
def test_what_is_encoded_is_decoded(several: list[Frame]) -> None:
    message = b"".join(
        encode(frame.type, frame.stream, frame.payload, flags=frame.flags, aux=frame.aux) for frame in several
    )
    assert list(decode(message)) == several


@given(st.binary(max_size=400))
def test_garbage_is_a_violation_or_exact_frames(garbage: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        read = list(decode(garbage))
        assert sum(12 + len(frame.payload) for frame in read) == len(garbage)


@given(st.lists(frames, min_size=1, max_size=3), st.data())
def test_a_message_cut_anywhere_else_than_between_frames_is_refused(
    several: list[Frame], data: st.DataObject
) -> None:
    encoded = [encode(frame.type, frame.stream, frame.payload) for frame in several]
    ends = {sum(map(len, encoded[:count])) for count in range(len(encoded) + 1)}
    message = b"".join(encoded)
    cut = data.draw(st.integers(0, len(message)))
    if cut in ends:
        list(decode(message[:cut]))
    else:
        with pytest.raises(ProtocolViolation):
            list(decode(message[:cut]))


def test_an_oversized_message_is_refused_unread() -> None:
    with pytest.raises(ProtocolViolation):
        list(decode(bytes(MAX_MESSAGE_BYTES + 1)))


def test_types_fit_their_halves() -> None:
    assert [kind for kind in FrameType if kind >= FIRST_IGNORABLE_TYPE] == [FrameType.NOTICE]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (0, ResetCode.CANCELLED),
        (8, ResetCode.WARMING),
        (77, ResetCode.NODE_ERROR),
        (255, ResetCode.NODE_ERROR),
    ],
)
def test_reset_codes_from_the_wire(wire: int, code: ResetCode) -> None:
    assert ResetCode.from_wire(wire) is code
