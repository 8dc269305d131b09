"""The event that ends a stream is known in each protocol, however the stream was cut into pieces."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.closing import closing_of
from runtime.usage import BodyEnds, TokenUsage, find_usage

RESPONSES, MESSAGES, CHAT = "/v1/responses", "/v1/messages", "/v1/chat/completions"
CUTS = st.lists(st.integers(min_value=0, max_value=20_000), max_size=40)


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def response(text: str, kind: str = "response.completed", **more: object) -> bytes:
    """A stream as llama.cpp and vLLM have it: its last event repeats everything."""
    usage = {"input_tokens": 13, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 8}
    body = event("response.created", response={"usage": None})
    body += event("response.output_text.delta", delta=text)
    return body + event(kind, response={"output": [{"text": text}], "tools": [], "usage": usage, **more})


def message(text: str, *, tells_all_at_the_end: bool = False) -> bytes:
    """llama.cpp tells the prompt's count at the start only, vLLM at both ends."""
    start = {"input_tokens": 1, "cache_read_input_tokens": 12, "output_tokens": 0}
    end = {"output_tokens": 8} | ({"input_tokens": 1} if tells_all_at_the_end else {})
    body = event("message_start", message={"role": "assistant", "usage": start})
    body += event("content_block_delta", index=0, delta={"type": "text_delta", "text": text})
    return body + event("message_delta", delta={"stop_reason": "end_turn"}, usage=end) + event("message_stop")


def pieces(body: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in pairwise(edges) if start < end]


def ends_of(path: str, body: bytes, cuts: Sequence[int] = ()) -> BodyEnds:
    ends = BodyEnds(closing_of(path))
    for piece in pieces(body, cuts):
        foreseen = ends.would_close(piece)
        ends.add(piece)
        assert foreseen == ends.closes
    return ends


@given(text=st.text(), cuts=CUTS)
def test_a_response_is_whole_and_counted_whatever_its_cut(text: str, cuts: list[int]) -> None:
    ends = ends_of(RESPONSES, response(text), cuts)
    assert ends.is_whole
    assert find_usage(ends, streamed=True) == TokenUsage(13, 4, 8)


@given(text=st.text(), cuts=CUTS, twice=st.booleans())
def test_a_message_is_whole_and_counted_whatever_its_cut(text: str, cuts: list[int], twice: bool) -> None:
    ends = ends_of(MESSAGES, message(text, tells_all_at_the_end=twice), cuts)
    assert ends.is_whole
    assert find_usage(ends, streamed=True) == TokenUsage(13, 12, 8)


@pytest.mark.parametrize("more", [{}, {"tools": [{"properties": {"usage": {"type": "string"}}}]}])
def test_a_last_event_longer_than_what_is_kept_is_counted(more: dict[str, object]) -> None:
    body = response("word " * 40_000, **more)
    ends = ends_of(RESPONSES, body, list(range(0, len(body), 9999)))
    assert find_usage(ends, streamed=True) == TokenUsage(13, 4, 8)


@given(text=st.text(), path=st.sampled_from([RESPONSES, MESSAGES]), cut=st.integers(1, 60))
def test_what_lacks_its_end_is_not_whole(text: str, path: str, cut: int) -> None:
    body = (response if path == RESPONSES else message)(text)
    assert not ends_of(path, body.rstrip()[:-cut]).is_whole


@pytest.mark.parametrize(
    "said",
    [
        "\nevent: response.completed\n",
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        "data: [DONE]",
    ],
)
@pytest.mark.parametrize("path", [RESPONSES, MESSAGES])
def test_what_a_model_says_ends_nothing(path: str, said: str) -> None:
    body = (response if path == RESPONSES else message)(said)
    begun = body.index(
        b"event: response.completed\ndata" if path == RESPONSES else b"event: message_stop\ndata"
    )
    assert not ends_of(path, body[:begun]).closes


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_a_response_ends_in_three_ways(kind: str) -> None:
    assert ends_of(RESPONSES, response("x", kind)).is_whole


def test_the_pieces_of_a_last_event_all_belong_to_it() -> None:
    body = response("word " * 1000)
    start = body.index(b"event: response.completed") + 40
    ends = ends_of(RESPONSES, body[:start])
    assert ends.closes
    assert not ends.is_whole
    ends.add(body[start:-2])
    assert ends.closes
    assert not ends.is_whole
    ends.add(body[-2:])
    assert ends.is_whole


@given(body=st.binary(max_size=3000), path=st.sampled_from([RESPONSES, MESSAGES, CHAT]))
def test_any_bytes_are_survived(body: bytes, path: str) -> None:
    find_usage(ends_of(path, body), streamed=True)
