"""The relay over an engine that speaks Responses and Messages, or that ranks."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from runtime.api_paths import BOTH
from tunnel.errors import ResetCode, StreamReset
from tunnel.messages import Usage

# What is read in the bytes, not how they are carried: one loop is enough.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


COUNTS = {"input_tokens": 13, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 2}
RESPONSE = [
    event("response.created", response={"usage": None}),
    event("response.output_text.delta", delta="a"),
    event("response.completed", response={"output": [{"text": "a" * 500}], "usage": COUNTS}),
]
MESSAGE = [
    event("message_start", message={"usage": {"input_tokens": 9, "cache_read_input_tokens": 4}}),
    event("content_block_delta", delta={"text": "a"}),
    event("message_delta", usage={"output_tokens": 2}),
    event("message_stop"),
]
STREAMS = [("/v1/responses", RESPONSE), ("/v1/messages", MESSAGE)]
USED = Usage(prompt_tokens=13, cached_tokens=4, completion_tokens=2)


@pytest.fixture(autouse=True)
def speaks_both(leases: Any) -> None:
    leases.endpoint = replace(leases.endpoint, protocols=BOTH)


@pytest.mark.parametrize(("path", "events"), STREAMS)
@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
async def test_whoever_has_the_whole_of_a_stream_was_counted(
    engine: Any, bridge: Any, path: str, events: list[bytes], size: int
) -> None:
    whole = b"".join(events)

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for start in range(0, len(whole), size):
            await connection.chunk(whole[start : start + size])
        await connection.end()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}', path=path)
    got = b""
    while (piece := await stream.receive()) is not None:
        got += piece
        if got == whole:
            assert stream.trailers is not None, "the last event came before its count"
    assert got == whole
    assert stream.trailers.usage == USED
    assert stream.trailers.outcome == "ok"
    assert engine.requests[0].path == path


@pytest.mark.parametrize(("path", "events"), STREAMS)
async def test_each_event_is_passed_on_before_the_next_exists(
    engine: Any, bridge: Any, path: str, events: list[bytes]
) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for each in events[:-1]:
            await connection.chunk(each)
            await turn.wait()
            turn.clear()
        await connection.chunk(events[-1])
        await connection.end()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}', path=path)
    for each in events[:-1]:
        assert await stream.receive() == each
        turn.set()
    assert await stream.receive() == events[-1]


@pytest.mark.parametrize(
    ("path", "last"),
    [
        ("/v1/responses", event("response.failed", response={"usage": COUNTS})),
        ("/v1/responses", event("error", message="no")),
        ("/v1/messages", event("error", error={"type": "api_error"})),
    ],
)
async def test_an_engines_own_word_that_it_failed_is_passed_on_and_counts_as_a_failure(
    engine: Any, bridge: Any, read: Any, path: str, last: bytes
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(RESPONSE[0])
        await connection.chunk(last)
        await connection.end()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}', path=path)
    assert b"".join(await read(stream)).endswith(last)
    assert stream.trailers.outcome == "engine_error"


@pytest.mark.parametrize(("path", "events"), STREAMS)
@pytest.mark.parametrize("missing", [3, 12])
async def test_an_engine_that_dies_in_its_last_event_has_not_answered(
    engine: Any, bridge: Any, read: Any, path: str, events: list[bytes], missing: int
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"".join(events)[:-missing])
        connection.reset()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}', path=path)
    with pytest.raises(StreamReset) as caught:
        await read(stream)
    assert caught.value.code is ResetCode.ENGINE_ERROR


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
async def test_an_engine_that_lacks_a_protocol_is_not_asked(
    engine: Any, bridge: Any, read: Any, leases: Any, path: str
) -> None:
    leases.endpoint = replace(leases.endpoint, protocols=frozenset())
    stream = await bridge.open(b'{"model": "smollm2"}', path=path)
    assert (await stream.head()).status == 400
    error = json.loads(b"".join(await read(stream)))["error"]
    assert (error["code"], "/v1/chat/completions" in error["message"]) == ("unsupported_parameter", True)
    assert engine.requests == []


async def test_a_ranking_is_asked_for_in_parts_and_answered_as_one(
    engine: Any, bridge: Any, read: Any, leases: Any
) -> None:
    leases.endpoint = replace(leases.endpoint, texts_at_once=2)

    async def script(request: Any, connection: Any) -> None:
        texts = json.loads(request.body)["documents"]
        results = [{"index": n, "relevance_score": len(text)} for n, text in enumerate(texts)]
        usage = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        await connection.answer(200, json.dumps({"model": "m", "results": results, "usage": usage}).encode())

    engine.script = script
    body = {"model": "smollm2", "query": "q", "documents": ["a", "bbb", "cc", "ddddd", "ee"], "top_n": 3}
    stream = await bridge.open(json.dumps(body).encode(), path="/v1/rerank")
    answer = json.loads(b"".join(await read(stream)))
    assert [result["index"] for result in answer["results"]] == [3, 1, 2]
    assert [len(json.loads(request.body)["documents"]) for request in engine.requests] == [2, 2, 1]
    assert stream.trailers.usage == Usage(prompt_tokens=5, cached_tokens=0, completion_tokens=0)


@pytest.mark.parametrize(("said", "param"), [({"top_n": -1}, "top_n"), ({"texts": ["a"]}, "texts")])
async def test_a_ranking_that_engines_fail_at_is_refused(
    engine: Any, bridge: Any, read: Any, said: dict[str, object], param: str
) -> None:
    stream = await bridge.open(
        json.dumps({"query": "q", "documents": ["a"], **said}).encode(), path="/v1/rerank"
    )
    assert (await stream.head()).status == 400
    assert json.loads(b"".join(await read(stream)))["error"]["param"] == param
    assert engine.requests == []
