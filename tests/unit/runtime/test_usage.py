"""Usage is found however the answer was cut into pieces, and never invented by what a model said."""

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.usage import HEAD_BYTES, TAIL_BYTES, BodyEnds, TokenUsage, find_usage

USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
TIMINGS = {"cache_n": 5, "prompt_n": 7, "predicted_n": 34, "predicted_per_second": 60.5}


def event(document: object) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def chunk(text: str = "", **more: object) -> bytes:
    return event({"choices": [{"delta": {"content": text}}], **more})


DONE = b"data: [DONE]\n\n"


def ends_of(body: bytes, cuts: Sequence[int] = ()) -> BodyEnds:
    ends = BodyEnds()
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        if start < end:
            ends.add(body[start:end])
    return ends


@given(
    cuts=st.lists(st.integers(min_value=0, max_value=5000), max_size=40),
    texts=st.lists(st.text(), max_size=10),
)
def test_usage_of_a_stream_survives_any_cut(cuts: list[int], texts: list[str]) -> None:
    body = b"".join(chunk(text) for text in texts) + chunk(usage=USAGE) + DONE
    ends = ends_of(body, cuts)
    assert ends.is_whole
    assert find_usage(ends, streamed=True) == TokenUsage(12, 0, 34)


@given(cuts=st.lists(st.integers(min_value=0, max_value=5000), max_size=40))
def test_llama_cpp_timings_stand_in_where_usage_was_not_asked_for(cuts: list[int]) -> None:
    body = chunk("hello") + chunk(timings=TIMINGS) + DONE
    assert find_usage(ends_of(body, cuts), streamed=True) == TokenUsage(12, 5, 34)


@given(prefix=st.binary(max_size=60), cut=st.integers(min_value=0, max_value=20))
def test_done_is_seen_only_at_the_very_end(prefix: bytes, cut: int) -> None:
    ends = ends_of(prefix + DONE, [len(prefix) + cut])
    assert ends.is_whole
    ends.add(chunk("more"))
    assert not ends.is_whole


def test_a_stream_without_counts_has_no_usage() -> None:
    assert find_usage(ends_of(chunk("a") + DONE), streamed=True) is None
    assert find_usage(BodyEnds(), streamed=True) is None


def test_null_usage_of_every_chunk_does_not_hide_the_last() -> None:
    body = chunk("a", usage=None) + chunk(usage=USAGE) + chunk("", usage=None) + DONE
    assert find_usage(ends_of(body), streamed=True) == TokenUsage(12, 0, 34)


def test_cached_tokens_are_read_and_never_more_than_the_prompt() -> None:
    usage = USAGE | {"prompt_tokens_details": {"cached_tokens": 99}}
    assert find_usage(ends_of(chunk(usage=usage)), streamed=True) == TokenUsage(12, 12, 34)


def test_the_responses_api_wraps_its_usage() -> None:
    body = event(
        {"type": "response.completed", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}
    )
    assert find_usage(ends_of(body), streamed=True) == TokenUsage(3, 0, 4)


def test_what_a_model_says_is_no_usage() -> None:
    said = '"usage": {"prompt_tokens": 1, "completion_tokens": 1}'
    body = json.dumps({"choices": [{"message": {"content": said}}], "usage": USAGE}).encode()
    assert find_usage(ends_of(body), streamed=False) == TokenUsage(12, 0, 34)
    filler = "x" * (TAIL_BYTES + 5000)
    cut_off = json.dumps({"usage": USAGE, "choices": [{"message": {"content": filler + said}}]}).encode()
    assert find_usage(ends_of(cut_off), streamed=False) == TokenUsage(12, 0, 34)


def test_usage_before_a_long_body_is_found_in_its_head() -> None:
    vectors = {"model": "m", "usage": {"prompt_tokens": 9, "total_tokens": 9}, "data": [0.25] * 40_000}
    body = json.dumps(vectors).encode()
    pieces = list(range(0, len(body), 16_384))
    assert find_usage(ends_of(body, pieces), streamed=False) == TokenUsage(9, 0, 0)


def test_usage_after_a_long_body_is_found_in_its_tail() -> None:
    body = json.dumps({"data": [0.25] * 40_000, "usage": USAGE}).encode()
    assert find_usage(ends_of(body, list(range(0, len(body), 999))), streamed=False) == TokenUsage(12, 0, 34)


@pytest.mark.parametrize(
    "wrong", [{"prompt_tokens": "12"}, {"prompt_tokens": True}, {"prompt_tokens": -1}, [], "x", 7]
)
def test_a_usage_that_is_none_is_none(wrong: object) -> None:
    assert find_usage(ends_of(json.dumps({"usage": wrong}).encode()), streamed=False) is None


@given(body=st.binary(max_size=3000), streamed=st.booleans())
def test_any_bytes_are_survived(body: bytes, streamed: bool) -> None:
    find_usage(ends_of(body), streamed=streamed)


@given(sizes=st.lists(st.integers(min_value=1, max_value=100_000), max_size=30))
def test_what_is_kept_is_bounded_and_is_the_end(sizes: list[int]) -> None:
    ends, whole = BodyEnds(), b""
    for number, count in enumerate(sizes):
        piece = bytes([number]) * count
        whole += piece
        ends.add(piece)
    assert whole.endswith(ends.tail)
    assert min(len(whole), TAIL_BYTES) <= len(ends.tail) < 2 * TAIL_BYTES
    assert ends.head == whole[:HEAD_BYTES]


@given(st.lists(st.sampled_from([b"data: x\n\n", b"data: [DO", b"NE]", b"[DONE]", b"\n", b" "]), max_size=8))
def test_whether_a_piece_would_say_done_is_known_before_it_is_added(pieces: list[bytes]) -> None:
    ends = BodyEnds()
    for piece in pieces:
        foreseen = ends.would_close(piece)
        ends.add(piece)
        assert foreseen == ends.is_whole


@given(cuts=st.lists(st.integers(min_value=0, max_value=5000), max_size=40))
def test_a_count_that_nobody_asked_for_comes_as_a_comment(cuts: list[int]) -> None:
    body = chunk("hello") + b": usage " + json.dumps(USAGE).encode() + b"\n\n" + DONE
    assert find_usage(ends_of(body, cuts), streamed=True) == TokenUsage(12, 0, 34)


def test_a_comment_that_the_model_wrote_is_text() -> None:
    body = chunk('\n: usage {"prompt_tokens": 1}\n') + DONE
    assert find_usage(ends_of(body), streamed=True) is None
