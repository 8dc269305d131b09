"""What the bytes of an answer mean, and when its tokens came."""

import json
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import ExchangeFailed
from benchmarks.generator.exchange import LINE_KEPT_BYTES, Reply

STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"
LAST = b"0\r\n\r\n"


def event(content: object = "word", delta: dict[str, object] | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": {"content": content} | (delta or {})}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\n"


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def read(pieces: Sequence[tuple[float, bytes]], *, streaming: bool = True) -> Reply:
    reply = Reply(streaming=streaming)
    for moment, piece in pieces:
        reply.feed(piece, moment)
    return reply


def whole(status: str, body: bytes, *, streaming: bool = True, more: bytes = b"") -> Reply:
    head = b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n" % (status.encode(), more, len(body))
    return read([(1.0, head + body)], streaming=streaming)


def failure_of(reply: Reply) -> ExchangeFailed:
    with pytest.raises(ExchangeFailed) as caught:
        reply.verdict()
    return caught.value


def test_times_are_those_of_the_token_chunks_only() -> None:
    reply = read(
        [
            (0.5, STREAM_HEAD),
            (1.0, chunked(event(None, {"role": "assistant"}))),
            (1.5, chunked(b": still here\n\n")),
            (2.0, chunked(event("one"))),
            (2.25, chunked(event("two"))),
            (3.25, chunked(event("three"))),
            (4.0, chunked(event(None))),
            (5.0, chunked(usage(7, 3))),
            (6.0, chunked(DONE) + LAST),
        ]
    )
    reply.verdict()
    assert (reply.first_token_at, reply.last_token_at) == (2.0, 3.25)
    assert reply.gaps == [0.25, 1.0]
    assert reply.token_chunks == 3
    assert reply.usage is not None
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (7, 3)
    assert reply.complete
    assert reply.reusable


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "x"},
        {"reasoning_content": "x"},
        {"reasoning": "x"},
        {"refusal": "x"},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
def test_every_kind_of_generated_content_counts(delta: dict[str, object]) -> None:
    assert read([(1.0, STREAM_HEAD + chunked(event(None, delta)))]).token_chunks == 1


@pytest.mark.parametrize(
    "delta", [{"content": ""}, {"role": "assistant"}, {"tool_calls": None}, {"tool_calls": []}]
)
def test_chunks_without_content_do_not_count(delta: dict[str, object]) -> None:
    assert read([(1.0, STREAM_HEAD + chunked(event(None, delta)))]).token_chunks == 0


def test_the_completions_api_carries_text() -> None:
    body = b'data: {"choices":[{"text":"a"}]}\n\ndata: {"choices":[{"text":""}]}\n\n'
    assert read([(1.0, STREAM_HEAD + chunked(body))]).token_chunks == 1


@given(
    contents=st.lists(st.text(min_size=1), min_size=1, max_size=6),
    newline=st.sampled_from([b"\n", b"\r\n"]),
    cuts=st.lists(st.integers(1, 400), max_size=12),
)
def test_how_the_bytes_are_cut_changes_nothing_but_times(
    contents: list[str], newline: bytes, cuts: list[int]
) -> None:
    body = b"".join(event(content) for content in contents) + usage(5, len(contents)) + DONE
    message = STREAM_HEAD + chunked(body.replace(b"\n", newline)) + LAST
    bounds = sorted({0, len(message), *(cut for cut in cuts if cut < len(message))})
    reply = read([(float(start), message[start:end]) for start, end in pairwise(bounds)])
    reply.verdict()
    assert reply.token_chunks == len(contents)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(contents)
    assert reply.first_token_at is not None
    assert reply.last_token_at is not None
    assert reply.first_token_at + sum(reply.gaps) == reply.last_token_at


@given(st.binary(max_size=300))
def test_no_bytes_whatever_raise_anything_unforeseen(noise: bytes) -> None:
    for message in (noise, STREAM_HEAD + chunked(b"data: " + noise + b"\n") + LAST):
        reply = Reply(streaming=True)
        with suppress(ExchangeFailed):
            reply.feed(message, 0.0)
            reply.feed_eof(0.0)
            reply.verdict()


def test_a_stream_without_its_end_mark_is_broken_off_even_if_http_is_content() -> None:
    assert failure_of(read([(1.0, STREAM_HEAD + chunked(event()) + LAST)])).kind == "no_done"
    reply = read([(1.0, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + event())])
    reply.feed_eof(2.0)
    assert failure_of(reply).kind == "truncated"  # without a length, nobody can tell


def test_empty_chunks_are_counted_apart_from_greetings_and_ends() -> None:
    end = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    body = event("", {"role": "assistant"}) + event("a") + event("") + event(None) + event("b") + end
    reply = read([(1.0, STREAM_HEAD + chunked(body + DONE) + LAST)])
    reply.verdict()
    assert (reply.token_chunks, reply.empty_chunks) == (2, 2)


def test_content_is_measured_in_bytes() -> None:
    calls = [{"function": {"arguments": "{}"}}]
    body = (
        event("a") + event("\u00e9") + event(None, {"reasoning": "abc"}) + event(None, {"tool_calls": calls})
    )
    streamed = read([(1.0, STREAM_HEAD + chunked(body + DONE) + LAST)])
    assert streamed.content_bytes == 1 + 2 + 3 + len(json.dumps(calls, separators=(",", ":")))
    answer = json.dumps({"choices": [{"message": {"role": "assistant", "content": "four"}}]}).encode()
    assert whole("200 OK", answer, streaming=False).content_bytes == 4


def test_a_lost_connection_is_broken_off() -> None:
    reply = read([(1.0, STREAM_HEAD + chunked(event()) + chunked(DONE))])
    reply.feed_eof(2.0)
    assert failure_of(reply).kind == "truncated"
    assert not reply.reusable


def test_a_body_without_length_ends_with_the_connection() -> None:
    reply = read([(1.0, b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + event() + DONE)])
    assert not reply.complete
    reply.feed_eof(2.0)
    reply.verdict()
    assert (reply.last_token_at, reply.reusable) == (1.0, False)


def test_an_error_within_the_stream_is_told_by_its_code() -> None:
    error = b'data: {"error":{"message":"the node\\nis gone","code":"node_lost"}}\n\n'
    failure = failure_of(read([(1.0, STREAM_HEAD + chunked(event() + error) + LAST)]))
    assert (failure.kind, failure.detail) == (
        "stream_error:node_lost",
        "error within the answer: the node is gone",
    )


def test_an_error_envelope_is_told_by_status_and_code() -> None:
    body = b'{"error":{"message":"no node","type":"service_unavailable","code":"no_available_node"}}'
    failure = failure_of(whole("503 Service Unavailable", body))
    assert (failure.kind, failure.detail) == ("http_503:no_available_node", "status 503: no node")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<html>no</html>", "http_502"),
        (b'{"error":"text"}', "http_502"),
        (b'{"error":{"code":502}}', "http_502"),
        (b'{"error":{"code":"not a plain word!"}}', "http_502"),
        (b'{"error":{"code":null,"type":"upstream_error"}}', "http_502:upstream_error"),
    ],
)
def test_odd_errors_fall_back_to_the_status(body: bytes, kind: str) -> None:
    assert failure_of(whole("502 Bad Gateway", body)).kind == kind


def test_a_reply_that_is_not_streamed_counts_as_one_arrival() -> None:
    body = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'
    reply = whole("200 OK", body, streaming=False)
    reply.verdict()
    assert (reply.first_token_at, reply.last_token_at, reply.token_chunks) == (None, 1.0, 0)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 2


def test_an_interim_answer_is_passed_over() -> None:
    message = b"HTTP/1.1 103 Early Hints\r\n\r\n" + STREAM_HEAD + chunked(event() + DONE) + LAST
    read([(1.0, message)]).verdict()


def test_an_answer_without_tokens_is_no_success() -> None:
    assert failure_of(read([(1.0, STREAM_HEAD + chunked(usage(3, 0) + DONE) + LAST)])).kind == "no_tokens"


def test_a_server_that_closes_says_so() -> None:
    assert not whole("200 OK", event() + DONE, more=b"Connection: close\r\n").reusable


def test_a_chunk_that_says_when_it_left_tells_how_long_it_was_under_way() -> None:
    stamped = [event().replace(b"}\n\n", b',"sent_at":%.1f}\n\n' % at) for at in (1.0, 2.0)]
    pieces = [
        (0.5, STREAM_HEAD),
        (1.25, chunked(stamped[0])),
        (2.5, chunked(stamped[1])),
        (2.5, chunked(event() + DONE) + LAST),
    ]
    reply = read(pieces)
    reply.verdict()
    assert (reply.delays, reply.token_chunks) == ([0.25, 0.5], 3)


@pytest.mark.parametrize("count", [-1, 1 << 60, 10**30])
def test_counts_that_no_server_can_mean_are_no_answer(count: int) -> None:
    body = event() + usage(5, count) + DONE
    assert failure_of(whole("200 OK", body)).kind == "bad_response"


def test_a_line_without_end_is_not_kept() -> None:
    reply = read([(0.0, STREAM_HEAD), (1.0, chunked(b"data: "))])
    for _ in range(9):
        reply.feed(chunked(b"x" * (LINE_KEPT_BYTES // 8)), 2.0)
    reply.feed(chunked(b"\n" + event() + DONE) + LAST, 3.0)
    assert "too long" in failure_of(reply).detail


def test_a_compressed_answer_is_named() -> None:
    reply = whole("200 OK", b"\x1f\x8b", more=b"Content-Encoding: gzip\r\n")
    assert "compressed" in failure_of(reply).detail
    reply = whole("401 Unauthorized", b"\x1f\x8b", more=b"Content-Encoding: gzip\r\n")
    assert failure_of(reply).kind == "http_401"


def test_a_page_of_html_is_no_stream() -> None:
    assert "--base-url" in failure_of(whole("200 OK", b"<html>please log in</html>")).detail


@pytest.mark.parametrize("message", [{}, {"content": ""}, {"content": None}])
def test_a_whole_answer_without_content_is_no_fast_answer(message: dict[str, object]) -> None:
    body = json.dumps({"choices": [{"message": message}]}).encode()
    assert failure_of(whole("200 OK", body, streaming=False)).kind == "no_tokens"


def test_an_error_within_a_whole_answer_is_one() -> None:
    body = json.dumps({"error": {"message": "no", "code": "busy"}, "choices": [{"text": "no"}]}).encode()
    assert failure_of(whole("200 OK", body, streaming=False)).kind == "stream_error:busy"
