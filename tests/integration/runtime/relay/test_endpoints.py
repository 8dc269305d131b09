"""The relay over an endpoint of the owner's, which calls the model otherwise than the request."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from runtime.forward import HELD_BODY_BYTES
from tunnel.errors import ResetCode
from tunnel.messages import Usage

# What an endpoint is told and counted, not how it is carried: one loop is enough.
pytestmark = pytest.mark.asyncio(loop_factories=["asyncio"])


@pytest.fixture
def theirs(leases: Any) -> None:
    leases.endpoint = replace(leases.endpoint, base_path="/llm", model="their/name")


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("asked", [False, True])
async def test_a_stream_of_an_endpoint_is_counted_and_shows_it_to_whoever_asked(
    engine: Any, bridge: Any, read: Any, sse: Any, leases: Any, asked: bool
) -> None:
    counted = b'data: {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}\n\n'
    whole = sse("a") + sse("b") + counted + b"data: [DONE]\n\n"

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for start in range(0, len(whole), 11):
            await connection.chunk(whole[start : start + 11])
        await connection.end()

    engine.script = script
    body = {"model": "smollm2", "messages": ["é"], "stream": True}
    if asked:
        body["stream_options"] = {"include_usage": True}
    stream = await bridge.open(json.dumps(body).encode())
    assert (await stream.head()).status == 200
    got = b"".join(await read(stream))
    hidden = b': usage {"prompt_tokens":7,"completion_tokens":2}\n\n'
    assert got == (whole if asked else whole.replace(counted, hidden))
    assert stream.trailers.usage == Usage(prompt_tokens=7, cached_tokens=0, completion_tokens=2)
    (sent,) = engine.requests
    assert sent.path == "/llm/v1/chat/completions"
    expected = {**body, "model": "their/name", "stream_options": {"include_usage": True}}
    assert json.loads(sent.body) == expected
    assert leases.held == 0


@pytest.mark.usefixtures("theirs")
async def test_each_piece_of_an_endpoint_is_passed_on_before_the_next_exists(
    engine: Any, bridge: Any, sse: Any
) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for text in ("one", "two"):
            await connection.chunk(sse(text))
            await turn.wait()
            turn.clear()
        await connection.chunk(b"data: [DONE]\n\n")
        await connection.end()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}')
    for text in ("one", "two"):
        assert await stream.receive() == sse(text)
        turn.set()
    assert await stream.receive() == b"data: [DONE]\n\n"


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("announced", [True, False])
async def test_a_long_body_for_an_endpoint_names_its_model_too(
    engine: Any, bridge: Any, read: Any, announced: bool
) -> None:
    body = json.dumps({"messages": "x" * (HELD_BODY_BYTES * 3), "model": "smollm2"}).encode()

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, json.loads(request.body)["model"].encode())

    engine.script = script
    stream = await bridge.open(body=None, content_length=len(body) if announced else None)
    await stream.send(body, fin=True)
    assert b"".join(await read(stream)) == b"their/name"


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("body", "code"),
    [(b'{"model": "m", "api_base": "http://x"}', "unsupported_parameter"), (b"{", "invalid_json")],
)
async def test_what_an_endpoint_may_not_be_asked_is_an_answer_and_it_hears_nothing(
    engine: Any, bridge: Any, read: Any, leases: Any, body: bytes, code: str
) -> None:
    stream = await bridge.open(body)
    assert (await stream.head()).status == 400
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == code
    assert engine.requests == []
    assert leases.held == 0


@pytest.mark.usefixtures("theirs")
async def test_a_caller_of_an_endpoint_who_leaves_hangs_up_on_it(engine: Any, bridge: Any, sse: Any) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(sse("a"))
        await connection.gone()
        hung_up.set()

    engine.script = script
    stream = await bridge.open(b'{"model": "smollm2", "stream": true}')
    await stream.receive()
    stream.reset(ResetCode.CANCELLED)
    async with asyncio.timeout(1):
        await hung_up.wait()
