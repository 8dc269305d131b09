"""Engines that answer with an error, are gone, or die under a request, as the relay tells the Hub of it."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from runtime.forward import HELD_BODY_BYTES
from tests.integration.runtime.relay.answering import DONE, USAGE, answers
from tunnel.errors import ResetCode, StreamReset


async def test_an_engines_error_answer_gets_the_envelope(engine: Any, bridge: Any, read: Any) -> None:
    error = {"code": 400, "message": "the request exceeds the context", "type": "exceed_context_size_error"}
    body = json.dumps({"error": error}).encode()

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(400, body)

    engine.script = script
    stream = await bridge.open()
    assert (await stream.head()).status == 400
    document = json.loads(b"".join(await read(stream)))
    assert document["error"]["code"] == "context_length_exceeded"
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["request_id"] == stream.open.uid
    assert stream.trailers.outcome == "context_length_exceeded"


async def test_an_engine_that_is_gone_is_reported(engine: Any, bridge: Any, leases: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        connection.reset()

    engine.script = script
    stream = await bridge.open()
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.ENGINE_ERROR
    assert leases.failed == ["replica-1"], "it may have died of the request, which is not asked again"
    assert not leases.held


async def test_an_engine_that_had_died_is_asked_again_once_it_is_loaded_anew(
    engine: Any, bridge: Any, leases: Any, read: Any, unused_port: int
) -> None:
    bodies = []

    async def script(request: Any, connection: Any) -> None:
        bodies.append(request.body)
        await connection.answer(200, b'{"ok": 1}')

    engine.script = script
    leases.reloaded, leases.endpoint = leases.endpoint, replace(leases.endpoint, port=unused_port)
    stream = await bridge.open(b'{"messages": []}')
    assert (await stream.head()).status == 200
    assert b"".join(await read(stream)) == b'{"ok": 1}'
    assert stream.trailers.outcome == "ok"
    assert leases.failed == ["replica-1"]
    assert bodies == [b'{"messages": []}']
    assert leases.budgets[1] <= leases.budgets[0]


async def test_a_body_that_was_not_held_is_sent_once(bridge: Any, leases: Any, unused_port: int) -> None:
    leases.reloaded, leases.endpoint = leases.endpoint, replace(leases.endpoint, port=unused_port)
    stream = await bridge.open(b"x" * (HELD_BODY_BYTES + 1))
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.ENGINE_ERROR
    assert leases.failed == ["replica-1"]


async def test_an_engine_killed_in_mid_answer_resets_the_stream(
    engine: Any, bridge: Any, leases: Any, sse: Any
) -> None:
    kill = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(sse("so far"))
        await kill.wait()
        connection.reset()

    engine.script = script
    stream = await bridge.open()
    assert await stream.receive() == sse("so far")
    kill.set()
    with pytest.raises(StreamReset) as caught:
        await stream.receive()
    assert caught.value.code is ResetCode.ENGINE_ERROR
    assert leases.failed == ["replica-1"]
    async with asyncio.timeout(5):
        await leases.free.wait()


async def test_an_engine_that_hangs_up_after_done_has_answered(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(sse("x", usage=USAGE) + DONE)
        connection.writer.close()

    engine.script = script
    stream = await bridge.open()
    assert b"".join(await read(stream)).endswith(DONE)
    assert stream.trailers.outcome == "ok"


async def test_an_error_event_of_the_engines_own_is_counted_as_one(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    engine.script = answers([sse("x"), b'data: {"error":{"code":500,"message":"oops"}}\n\n'])
    stream = await bridge.open()
    assert b"oops" in b"".join(await read(stream))
    assert stream.trailers.outcome == "engine_error"
