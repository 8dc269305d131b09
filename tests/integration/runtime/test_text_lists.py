"""Lists of texts for an engine that takes some at a time: in parts, and given up with whoever asked."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tunnel.errors import ResetCode, StreamReset
from tunnel.messages import Usage

TEXTS = [f"text {number}" for number in range(5)]


def vectors(asked: dict[str, Any]) -> bytes:
    data = [{"object": "embedding", "index": n, "embedding": t} for n, t in enumerate(asked["input"])]
    usage = {"prompt_tokens": 3 * len(data), "total_tokens": 3 * len(data)}
    return json.dumps({"object": "list", "data": data, "model": "m", "usage": usage}).encode()


@pytest.fixture(autouse=True)
def two_at_once(leases: Any) -> None:
    leases.endpoint = replace(leases.endpoint, texts_at_once=2)


async def ask(bridge: Any, **asked: Any) -> Any:
    body = json.dumps({"model": "smollm2", **asked}).encode()
    return await bridge.open(body, path="/v1/embeddings")


async def test_a_list_is_answered_as_one(engine: Any, bridge: Any, read: Any, leases: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, vectors(json.loads(request.body)))

    engine.script = script
    stream = await ask(bridge, input=TEXTS)
    head = await stream.head()
    assert (head.status, dict(head.headers)["content-type"]) == (200, "application/json")
    answer = json.loads(b"".join(await read(stream)))
    assert [(item["index"], item["embedding"]) for item in answer["data"]] == list(enumerate(TEXTS))
    assert answer["usage"] == {"prompt_tokens": 15, "total_tokens": 15}
    assert stream.trailers.usage == Usage(prompt_tokens=15, cached_tokens=0, completion_tokens=0)
    assert [json.loads(sent.body)["input"] for sent in engine.requests] == [TEXTS[:2], TEXTS[2:4], TEXTS[4:]]
    assert leases.held == 0


async def test_who_leaves_is_noticed_between_two_parts(engine: Any, bridge: Any, leases: Any) -> None:
    first, gone = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        first.set()
        await connection.gone()
        gone.set()

    engine.script = script
    stream = await ask(bridge, input=TEXTS)
    await first.wait()
    stream.reset(ResetCode.CANCELLED)
    await gone.wait()
    await leases.free.wait()
    assert len(engine.requests) == 1


async def test_a_part_that_is_refused_refuses_the_list(engine: Any, bridge: Any, read: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        asked = json.loads(request.body)
        if asked["input"] == TEXTS[:2]:
            await connection.answer(200, vectors(asked))
        else:
            await connection.answer(400, b'{"error": {"message": "a text is empty"}}')

    engine.script = script
    stream = await ask(bridge, input=TEXTS)
    assert (await stream.head()).status == 400
    assert json.loads(b"".join(await read(stream)))["error"]["message"] == "a text is empty"
    assert len(engine.requests) == 2


async def test_an_engine_that_dies_in_the_middle_is_said(engine: Any, bridge: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        if len(engine.requests) == 1:
            await connection.answer(200, vectors(json.loads(request.body)))
        else:
            connection.reset()

    engine.script = script
    stream = await ask(bridge, input=TEXTS)
    with pytest.raises(StreamReset):
        await stream.head()


async def test_more_than_may_come_is_refused_before_the_engine_hears_of_it(
    engine: Any, bridge: Any, read: Any
) -> None:
    stream = await ask(bridge, input=["a"] * 2049)
    assert (await stream.head()).status == 400
    assert json.loads(b"".join(await read(stream)))["error"]["param"] == "input"
    assert engine.requests == []


async def test_a_text_that_no_context_holds_is_refused_before_the_engine_cuts_it_up(
    engine: Any, bridge: Any, read: Any, leases: Any
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, vectors(json.loads(request.body)))

    engine.script = script
    leases.endpoint = replace(leases.endpoint, most_text_bytes=1000)
    for asked in ("x" * 1001, ["short", "x" * 1001]):
        stream = await ask(bridge, input=asked)
        assert (await stream.head()).status == 400
        error = json.loads(b"".join(await read(stream)))["error"]
        assert error["code"] == "context_length_exceeded"
        assert "xx" not in error["message"]
    assert engine.requests == []
    stream = await ask(bridge, input=["x" * 900] * 5)
    assert (await stream.head()).status == 200
    assert len(json.loads(b"".join(await read(stream)))["data"]) == 5


async def test_what_could_not_be_counted_is_not_passed_on(engine: Any, bridge: Any, read: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"bytes", content_type="application/octet-stream")

    engine.script = script
    stream = await ask(bridge, input="a", encoding_format="bytes")
    assert (await stream.head()).status == 400
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == "unsupported_parameter"
