"""Bodies and streams to and from an endpoint of the owner's: changed where they must be, nowhere else."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.adaptation import LEADS_ELSEWHERE, MAX_HELD_BYTES, UsageHider, adapt
from runtime.errors import RequestRefused
from runtime.usage import BodyEnds, TokenUsage, find_usage

DOCS = Path(__file__).parents[3] / "docs" / "node.md"
CHAT = "/v1/chat/completions"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
OTHERS = st.dictionaries(
    st.text(max_size=12).filter(lambda name: name not in LEADS_ELSEWHERE | {"model", "stream_options"}),
    VALUES,
    max_size=6,
)


@given(others=OTHERS, model=st.text(max_size=40))
def test_the_model_is_named_anew_and_every_other_member_stays(others: dict[str, Any], model: str) -> None:
    body = json.dumps({"model": "asked", **others}).encode()
    sent = json.loads(adapt(body, "/v1/embeddings", model).body)
    assert sent == {**others, "model": model}


def test_numbers_and_strings_keep_their_spelling() -> None:
    body = (
        b'{"temperature": 1.50e-1, "seed":123456789012345678901234567890, "stop": "\\u00e9\\/", "model":"x"}'
    )
    sent = adapt(body, CHAT, "there").body
    for spelt in (b"1.50e-1", b"123456789012345678901234567890", b'"\\u00e9\\/"'):
        assert spelt in sent


def test_of_two_models_neither_reaches_the_endpoint() -> None:
    sent = adapt(b'{"model": "a", "model": "b", "mod\\u0065l": "c"}', CHAT, "there").body
    assert sent == b'{"model":"there"}'


@pytest.mark.parametrize("member", sorted(LEADS_ELSEWHERE))
def test_a_request_cannot_choose_another_server_or_model(member: str) -> None:
    with pytest.raises(RequestRefused) as refused:
        adapt(json.dumps({"model": "m", member: "http://elsewhere.example"}).encode(), CHAT, "there")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", member)
    assert "elsewhere.example" not in str(refused.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/v1/responses", {"tools": [{"type": "mcp", "server_url": "http://elsewhere.example"}]}),
        ("/v1/responses", {"previous_response_id": "resp_1"}),
        ("/v1/messages", {"mcp_servers": [{"url": "http://elsewhere.example"}]}),
    ],
)
def test_an_endpoint_is_asked_neither_for_tools_of_its_own_nor_for_what_it_stored(
    path: str, said: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused) as refused:
        adapt(json.dumps({"model": "m", **said}).encode(), path, "there")
    assert (refused.value.code, refused.value.param) == ("unsupported_parameter", next(iter(said)))


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_only_openais_chats_are_asked_to_count(path: str) -> None:
    adapted = adapt(b'{"model":"m","stream":true}', path, "there")
    assert (adapted.body, adapted.unasked) == (b'{"model":"there","stream":true}', False)


def test_the_docs_name_every_member_that_is_refused() -> None:
    (named,) = re.findall(r"server or model of its own \(([^)]*)\)", DOCS.read_text())
    assert set(re.findall(r"`(\w+)`", named)) == LEADS_ELSEWHERE


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff", b'{"x":' + b"[" * 100_000, b'{"a":1}{}'])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(RequestRefused) as refused:
        adapt(body, CHAT, "there")
    assert refused.value.code == "invalid_json"


@pytest.mark.parametrize(
    ("path", "given", "unasked", "options"),
    [
        (CHAT, {"stream": True}, True, {"include_usage": True}),
        ("/v1/completions", {"stream": True}, True, {"include_usage": True}),
        (CHAT, {"stream": True, "stream_options": None}, True, {"include_usage": True}),
        (
            CHAT,
            {"stream": True, "stream_options": {"include_usage": False, "x": [1]}},
            True,
            {"include_usage": True, "x": [1]},
        ),
        (CHAT, {"stream": True, "stream_options": {"include_usage": True}}, False, {"include_usage": True}),
        (CHAT, {"stream": True, "stream_options": 7}, False, 7),
        (CHAT, {"stream": False}, False, None),
        (CHAT, {"stream": "true"}, False, None),
        (CHAT, {}, False, None),
        ("/v1/embeddings", {"stream": True}, False, None),
    ],
)
def test_a_stream_is_counted_whether_or_not_that_was_asked_for(
    path: str, given: dict[str, Any], unasked: bool, options: object
) -> None:
    adapted = adapt(json.dumps({"model": "m", **given}).encode(), path, "there")
    assert adapted.unasked == unasked
    assert json.loads(adapted.body).get("stream_options") == options


# the stream on its way back

USAGE = {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46}
DONE = b"data: [DONE]\n\n"


def event(document: object, *, compact: bool, end: bytes = b"\n\n") -> bytes:
    separators = (",", ":") if compact else (", ", ": ")
    return b"data: " + json.dumps(document, separators=separators).encode() + end


def passed(stream: bytes, cuts: list[int]) -> bytes:
    hider = UsageHider()
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    found = b""
    for piece in (stream[start:end] for start, end in pairwise(edges)):
        short = hider.passes(piece)
        fed = hider.feed(piece)
        assert not short or (fed == piece and not hider.holds), "the short way would be another"
        found += fed
    return found + hider.rest()


@given(
    cuts=st.lists(st.integers(0, 5000), max_size=40),
    texts=st.lists(st.text() | st.just('"choices":[]') | st.just('{"choices": [], "usage": {}}'), max_size=6),
    compact=st.booleans(),
    end=st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)
def test_a_count_that_nobody_asked_for_is_a_comment_however_the_stream_was_cut(
    cuts: list[int], texts: list[str], compact: bool, end: bytes
) -> None:
    said = [event({"choices": [{"delta": {"content": text}}]}, compact=compact, end=end) for text in texts]
    counted = event({"id": "x", "choices": [], "usage": USAGE}, compact=compact, end=end)
    found = passed(b"".join(said) + counted + DONE, cuts)
    assert found.startswith(b"".join(said) + b": usage {")
    assert found.endswith(end + DONE)
    chunks = [line for line in found.splitlines() if line.startswith(b"data: {")]
    assert all(json.loads(chunk[6:])["choices"] for chunk in chunks)
    ends = BodyEnds()
    ends.add(found)
    assert find_usage(ends, streamed=True) == TokenUsage(12, 0, 34)


@pytest.mark.parametrize(
    "document",
    [
        {"choices": [], "prompt_filter_results": []},
        {"choices": [], "usage": None},
        {"choices": [{"delta": {}}], "usage": USAGE},
        {"choices": [{"delta": {"x": {"choices": []}}}], "usage": USAGE},
    ],
)
def test_what_is_no_mere_count_passes_as_it_is(document: object) -> None:
    stream = event(document, compact=True) + b'data: {"choices":[],"usage":{}\n\n' + DONE
    assert passed(stream, [7, 30]) == stream


@given(stream=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes_are_survived(stream: bytes, cuts: list[int]) -> None:
    assert passed(stream, cuts) == stream


def test_a_line_without_end_is_not_kept_for_ever() -> None:
    hider = UsageHider()
    assert hider.feed(b"x" * MAX_HELD_BYTES) == b""
    assert hider.feed(b"y") == b"x" * MAX_HELD_BYTES + b"y"
    assert not hider.holds


@pytest.mark.parametrize("name", ["Model", "MODEL", "Api_Base", "user_config"])
def test_no_spelling_of_a_member_leads_elsewhere(name: str) -> None:
    body = json.dumps({"model": "mine", name: "gpt-oss:120b-cloud"}).encode()
    with pytest.raises(RequestRefused) as refused:
        adapt(body, "/v1/chat/completions", "llama3:8b")
    assert refused.value.param == name
