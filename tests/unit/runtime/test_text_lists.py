"""A list of texts in parts, and their answers as one."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.errors import EngineFailed, RequestRefused
from runtime.text_lists import MOST_TEXTS, Parts, check, longest, split

EMBEDDINGS, COMPLETIONS, RERANK = "/v1/embeddings", "/v1/completions", "/v1/rerank"
TEXTS = st.lists(st.text() | st.lists(st.integers(0, 2**31), min_size=1), min_size=1, max_size=40)


def embed(body: bytes) -> bytes:
    """What an engine answers: each text stands for itself."""
    asked = json.loads(body)
    texts = asked["input"]
    data = [{"object": "embedding", "index": n, "embedding": text} for n, text in enumerate(texts)]
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts), "prompt_tokens_details": None}
    return json.dumps({"object": "list", "model": asked["model"], "data": data, "usage": usage}).encode()


@given(texts=TEXTS, at_once=st.integers(1, 9))
def test_in_parts_the_answer_is_what_it_is_at_once(texts: list[Any], at_once: int) -> None:
    body = json.dumps({"model": "m", "input": texts, "user": {"input": [1]}}).encode()
    parts = split(body, EMBEDDINGS, at_once)
    if parts is None:
        assert len(texts) <= at_once
        return
    assert all(0 < len(json.loads(part)["input"]) <= at_once for part in parts.bodies)
    assert {json.dumps(json.loads(part)["user"]) for part in parts.bodies} == {'{"input": [1]}'}
    whole, merged = json.loads(embed(body)), json.loads(parts.merge([embed(part) for part in parts.bodies]))
    del whole["usage"]["prompt_tokens_details"]
    assert merged == whole


@pytest.mark.parametrize(
    "asked",
    [
        {"input": "one text"},
        {"input": [1, 2, 3, 4, 5]},
        {"input": [-1, 2, 3]},
        {"input": ["a", 5, "b"]},
        {"input": {"a": 1}},
        {"input": []},
        {"input": None},
        {},
        {"prompt": ["a", "b", "c"]},
    ],
)
def test_what_is_no_list_of_texts_goes_as_it_came(asked: dict[str, Any]) -> None:
    assert split(json.dumps(asked).encode(), EMBEDDINGS, 1) is None


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'"x"', b"\xff", b"[" * 100_000, b'{"input":[' * 9_000])
def test_what_cannot_be_read_is_the_engines_to_refuse(body: bytes) -> None:
    assert split(body, EMBEDDINGS, 1) is None


def test_chats_are_no_lists() -> None:
    assert split(b'{"input":["a","b"],"prompt":["a","b"]}', "/v1/chat/completions", 1) is None


def test_more_than_anybody_may_ask_for_at_once_is_refused() -> None:
    with pytest.raises(RequestRefused, match="2048 in one request") as caught:
        split(json.dumps({"input": ["a"] * (MOST_TEXTS + 1)}).encode(), EMBEDDINGS, 4)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "input")


def test_a_list_of_prompts_is_as_long_as_there_are_slots() -> None:
    assert split(b'{"prompt":["a","b"]}', COMPLETIONS, 2) is None
    with pytest.raises(RequestRefused, match="`prompt` has 3 texts"):
        split(b'{"prompt":["a","b","c"]}', COMPLETIONS, 2)


@pytest.mark.parametrize("answer", [b"", b"[]", b'{"data":5}', b'{"data":[1]}', b"\xff"])
def test_an_answer_that_is_no_list_of_vectors_is_the_engines_fault(answer: bytes) -> None:
    with pytest.raises(EngineFailed):
        Parts([b"", b""], 1, EMBEDDINGS).merge([answer, answer])


def rank(body: bytes) -> bytes:
    """What an engine answers: a text scores by its length, and the best come first."""
    asked = json.loads(body)
    texts = asked["documents"]
    results = [{"index": n, "relevance_score": float(len(text))} for n, text in enumerate(texts)]
    results.sort(key=lambda result: -result["relevance_score"])
    usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
    return json.dumps({"model": "m", "results": results[: asked.get("top_n")], "usage": usage}).encode()


@given(
    texts=st.lists(st.text(), min_size=1, max_size=40),
    at_once=st.integers(1, 9),
    top_n=st.none() | st.integers(1, 50),
)
def test_a_ranking_in_parts_is_what_it_is_at_once(texts: list[str], at_once: int, top_n: int | None) -> None:
    asked = {"model": "m", "query": "q", "documents": texts} | ({} if top_n is None else {"top_n": top_n})
    body = json.dumps(asked).encode()
    parts = split(body, RERANK, at_once)
    if parts is None:
        assert len(texts) <= at_once
        return
    merged = json.loads(parts.merge([rank(part) for part in parts.bodies]))
    assert merged == json.loads(rank(body))


@pytest.mark.parametrize(
    "answer",
    [
        b'{"results":5}',
        b'{"results":[{"index":0}]}',
        b'{"results":[{"relevance_score":1.0}]}',
        b'{"results":[{"index":0,"relevance_score":"x"}]}',
        b'[{"index":0,"score":1}]',
    ],
)
def test_an_answer_that_is_no_ranking_is_the_engines_fault(answer: bytes) -> None:
    with pytest.raises(EngineFailed):
        Parts([b"", b""], 1, RERANK).merge([answer, answer])


@pytest.mark.parametrize("top_n", [0, -1, "two", 1.5, [], True])
def test_a_ranking_of_no_size_is_refused(top_n: object) -> None:
    body = json.dumps({"query": "q", "documents": ["a"], "top_n": top_n}).encode()
    with pytest.raises(RequestRefused) as caught:
        check(body, RERANK)
    assert (caught.value.code, caught.value.param) == ("invalid_value", "top_n")


def test_a_ranking_in_a_shape_whose_answer_has_no_count_is_refused() -> None:
    with pytest.raises(RequestRefused, match="documents") as caught:
        check(b'{"query":"q","texts":["a"]}', RERANK)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "texts")


@pytest.mark.parametrize("body", [b'{"query":"q","documents":["a"],"top_n":null}', b"[", b"[]", b"\xff", b""])
def test_any_other_ranking_is_the_engines_to_judge(body: bytes) -> None:
    check(body, RERANK)
    check(b'{"top_n":-1,"texts":1}', EMBEDDINGS)


def test_a_text_is_read_together_with_what_it_is_ranked_for() -> None:
    body = json.dumps({"query": "q" * 100, "documents": ["a" * 10, "b" * 1000]}).encode()
    assert longest(body, RERANK) == 100 + 1000 + 4
