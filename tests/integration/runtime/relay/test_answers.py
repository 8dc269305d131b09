"""An answer from a scripted engine through the relay to the Hub: its bytes, its end, its count, its lease."""

import asyncio
import json
from typing import Any

import pytest

from tests.integration.runtime.relay.answering import DONE, USAGE, answers


async def test_bytes_pass_as_they_are_and_the_end_carries_usage(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    events = [sse("Hel"), sse("lo"), sse(usage=USAGE), DONE]
    engine.script = answers(events)
    stream = await bridge.open(b'{"model":"smollm2","stream":true}')
    head = await stream.head()
    assert head.status == 200
    assert dict(head.headers) == {"content-type": "text/event-stream", "x-porten-model-digest": "sha256:feed"}
    assert b"".join(await read(stream)) == b"".join(events)
    assert stream.trailers.outcome == "ok"
    usage = stream.trailers.usage
    assert (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) == (11, 4, 3)
    assert 0 < stream.trailers.ttft_ms < 5000


async def test_the_engine_gets_the_body_and_its_own_key_and_nothing_of_the_callers(
    engine: Any, bridge: Any, read: Any
) -> None:
    engine.script = answers([DONE])
    stream = await bridge.open(b'{"odd":  1}')
    await read(stream)
    asked = engine.requests[0]
    assert asked.body == b'{"odd":  1}'
    assert asked.headers["authorization"] == "bearer engine-key"
    assert "sk-porten" not in str(asked.headers)


@pytest.mark.parametrize("cut", range(1, len(DONE)))
async def test_done_never_comes_before_the_trailers(engine: Any, bridge: Any, sse: Any, cut: int) -> None:
    """The Hub writes the usage down when it sees them; whoever has `[DONE]` must have been counted."""
    engine.script = answers([sse("x", usage=USAGE) + DONE[:cut], DONE[cut:]])
    stream = await bridge.open()
    got = b""
    while (piece := await stream.receive()) is not None:
        got += piece
        if got.endswith(DONE):
            assert stream.trailers is not None
            assert stream.finished
    assert got.endswith(DONE)


async def test_each_piece_is_passed_on_before_the_next_exists(engine: Any, bridge: Any, sse: Any) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for text in "abc":
            await connection.chunk(sse(text))
            await turn.wait()
            turn.clear()
        await connection.chunk(DONE)
        await connection.end()

    engine.script = script
    stream = await bridge.open()
    for text in "abc":
        assert await stream.receive() == sse(text)
        turn.set()
    assert await stream.receive() == DONE
    assert stream.finished


async def test_a_json_answer_ends_with_its_last_bytes(engine: Any, bridge: Any, read: Any) -> None:
    body = json.dumps({"choices": [{"message": {"content": "x" * 50_000}}], "usage": USAGE}).encode()

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, body)

    engine.script = script
    stream = await bridge.open()
    assert b"".join(await read(stream)) == body
    assert stream.trailers.usage.completion_tokens == 3


async def test_a_slot_is_asked_for_in_the_name_of_the_keys_organisation(
    engine: Any, bridge: Any, leases: Any, read: Any
) -> None:
    engine.script = answers([DONE])
    await read(await bridge.open())
    assert leases.shares == ["org_a"]


async def test_the_slot_is_free_once_the_answer_is_through(
    engine: Any, bridge: Any, leases: Any, read: Any
) -> None:
    engine.script = answers([DONE])
    await read(await bridge.open())
    async with asyncio.timeout(5):
        await leases.free.wait()
    assert leases.held == 0


async def test_tokens_and_time_are_reported_to_the_lease(
    engine: Any, bridge: Any, leases: Any, read: Any, sse: Any
) -> None:
    engine.script = answers([sse(usage=USAGE), DONE])
    await read(await bridge.open())
    [(tokens, seconds)] = leases.reports
    assert tokens == 3
    assert seconds > 0
