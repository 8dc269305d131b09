import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.errors import ProtocolViolation
from tunnel.messages import (
    Challenge,
    Command,
    Event,
    Goaway,
    Head,
    Hello,
    Message,
    Notice,
    Open,
    Reset,
    Status,
    Trailers,
    Welcome,
    decode_message,
    encode_message,
)

KINDS = [Challenge, Hello, Welcome, Open, Head, Trailers, Status, Goaway, Command, Notice, Event, Reset]
short = st.text(max_size=20)
headers = st.lists(st.tuples(short, short), max_size=3).map(tuple)
finite = st.floats(allow_nan=False)
messages = st.one_of(
    st.builds(Challenge, nonce=st.binary(max_size=40), hub_id=short),
    st.builds(Head, status=st.integers(100, 599), headers=headers),
    st.builds(Reset, code=st.integers(0, 255), reason=short),
    st.builds(Goaway, reason=short, reconnect_in=finite, deadline=finite, last_stream=st.integers(0, 2**32)),
    st.builds(
        Open,
        uid=short,
        generation=st.integers(0, 2**63),
        method=short,
        path=short,
        headers=headers,
        deadline=finite,
        ticket=short,
        window=st.integers(0, 2**40),
        content_length=st.none() | st.integers(0, 2**40),
    ),
)


@given(messages)
def test_round_trip(message: Message) -> None:
    assert decode_message(type(message), encode_message(message)) == message


@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_garbage_is_a_violation(kind: type[Message], garbage: bytes) -> None:
    with contextlib.suppress(ProtocolViolation):
        decode_message(kind, garbage)


@given(
    st.sampled_from(KINDS),
    st.recursive(st.none() | st.integers() | short, lambda s: st.lists(s) | st.dictionaries(short, s)),
)
def test_foreign_msgpack_is_a_violation(kind: type[Message], tree: object) -> None:
    try:
        payload = msgspec.msgpack.encode(tree)
    except OverflowError:
        return
    with contextlib.suppress(ProtocolViolation):
        decode_message(kind, payload)


def test_unknown_fields_are_ignored() -> None:
    payload = msgspec.msgpack.encode({"code": 1, "reason": "r", "added_in_v2": [1, 2]})
    assert decode_message(Reset, payload) == Reset(code=1, reason="r")


def test_deep_nesting_does_not_crash() -> None:
    with pytest.raises(ProtocolViolation):
        decode_message(Reset, b"\x81\xa4deep" + b"\x91" * 30_000)


def test_limits_of_size() -> None:
    with pytest.raises(ProtocolViolation) as ours:
        encode_message(Reset(code=0, reason="x" * 40_000))
    assert ours.value.local
    with pytest.raises(ProtocolViolation) as theirs:
        decode_message(Reset, msgspec.msgpack.encode({"code": 0, "reason": "x" * 40_000}))
    assert not theirs.value.local
