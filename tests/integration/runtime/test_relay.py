"""A stream from the Hub through the relay to a scripted engine and back."""

import asyncio
import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.errors import (
    EngineConnectionLost,
    EngineUnavailable,
    LoadFailed,
    ModelDoesNotFit,
    ModelUnknown,
    NodeStopping,
    Overloaded,
    RuntimeFault,
    Warming,
)
from runtime.forward import HELD_BODY_BYTES
from runtime.progress import LoadProgress
from tunnel.errors import ResetCode, StreamReset

DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def answers(pieces: list[bytes], *, last_with_end: bool = False) -> Any:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for piece in pieces:
            await connection.chunk(piece)
            await asyncio.sleep(0.005)  # so that they are separate segments
        await connection.end()

    return script


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


# tickets


@pytest.mark.parametrize(
    ("changes", "gate"),
    [
        ({"node_id": "node_b"}, "node"),
        ({"owner_id": "org_b"}, "owner"),
        ({"region": "us"}, "region"),
        ({"organisation_id": "org_b"}, "sharing"),
        ({"request_id": "req_other"}, "request"),
        ({"generation": 2}, "generation"),
        ({"expires_at": int(time.time()) - 100}, "expired"),
        ({"key": Ed25519PrivateKey.generate()}, "signature"),
    ],
)
async def test_a_ticket_for_something_else_is_refused(
    engine: Any, bridge: Any, changes: dict[str, Any], gate: str
) -> None:
    stream = await bridge.open(uid="req_x", ticket=bridge.ticket("req_x", **changes))
    with pytest.raises(StreamReset, match=gate) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.TICKET_REFUSED
    assert engine.requests == []


async def test_a_ticket_is_good_once(engine: Any, bridge: Any, read: Any) -> None:
    engine.script = answers([DONE])
    ticket = bridge.ticket("req_x")
    await read(await bridge.open(uid="req_x", ticket=ticket))
    stream = await bridge.open(uid="req_x", ticket=ticket)
    with pytest.raises(StreamReset, match="replay"):
        await stream.head()
    assert len(engine.requests) == 1


async def test_why_a_request_was_refused_is_in_the_log(
    bridge: Any, leases: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "runtime.relay")
    leases.refuse = EngineUnavailable("llama.cpp is not installed", remedy="install it")
    stream = await bridge.open()
    with pytest.raises(StreamReset):
        await stream.head()
    [ended] = [record for record in caplog.records if record.event == "request_ended"]
    assert (ended.outcome, ended.reason) == ("refused", "llama.cpp is not installed (install it)")


async def test_what_an_engine_said_is_not_in_the_log(
    bridge: Any, leases: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "runtime.relay")
    leases.refuse = EngineConnectionLost("no HTTP: PROMPT")
    stream = await bridge.open()
    with pytest.raises(StreamReset):
        await stream.head()
    assert "request_ended" in [record.event for record in caplog.records]
    assert not any("PROMPT" in str(vars(record)) for record in caplog.records)


async def test_a_stream_of_a_session_that_is_over_is_refused(bridge: Any) -> None:
    stream = await bridge.open(uid="req_x", generation=9, ticket=bridge.ticket("req_x", generation=9))
    with pytest.raises(StreamReset, match="generation"):
        await stream.head()


# refusals and failures


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Overloaded("m"), ResetCode.OVERLOADED),
        (ModelUnknown("m"), ResetCode.REFUSED),
        (ModelDoesNotFit("m", "too big"), ResetCode.REFUSED),
        (EngineUnavailable("none", remedy="install"), ResetCode.REFUSED),
        (NodeStopping("stopping"), ResetCode.REFUSED),
        (LoadFailed("m", "bad file"), ResetCode.LOAD_FAILED),
    ],
)
async def test_a_fault_before_the_answer_says_whether_another_node_may_be_tried(
    bridge: Any, leases: Any, fault: RuntimeFault, code: ResetCode
) -> None:
    leases.refuse = fault
    stream = await bridge.open()
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is code


async def test_a_model_still_warming_is_an_answer(bridge: Any, leases: Any, read: Any) -> None:
    leases.refuse = Warming("smollm2", LoadProgress("downloading", 1, 4))
    stream = await bridge.open()
    head = await stream.head()
    assert (head.status, dict(head.headers)["retry-after"]) == (503, "5")
    document = json.loads(b"".join(await read(stream)))
    assert document["error"]["code"] == "model_warming"
    assert "25%" in document["error"]["message"]
    assert stream.trailers.outcome == "model_warming"


async def test_the_callers_warmup_budget_reaches_the_lease(
    engine: Any, bridge: Any, leases: Any, read: Any
) -> None:
    engine.script = answers([DONE])
    for value in ("7.5", "nonsense", "-1", "1e9"):
        await read(await bridge.open(headers=(("X-Porten-Warmup-Budget", value),)))
    assert leases.budgets[0] == 7.5
    assert all(50 < budget <= 60 for budget in leases.budgets[1:])  # never past the request's own deadline


async def test_a_draining_node_starts_nothing(engine: Any, bridge: Any) -> None:
    bridge.relay.refusing = True
    stream = await bridge.open()
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.REFUSED
    assert engine.requests == []


@pytest.mark.parametrize(
    "wrong", [{"path": "/slots"}, {"path": "/v1/chat/completions/../../slots"}, {"method": "GET"}]
)
async def test_only_the_inference_endpoints_are_reached(
    engine: Any, bridge: Any, read: Any, wrong: dict[str, str]
) -> None:
    stream = await bridge.open(**wrong)
    assert (await stream.head()).status == 404
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == "unknown_url"
    assert engine.requests == []


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


async def test_the_deadline_ends_a_request(engine: Any, bridge: Any, leases: Any) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.gone()
        hung_up.set()

    engine.script = script
    stream = await bridge.open(deadline=time.time() + 0.2)
    with pytest.raises(StreamReset) as caught:
        await stream.head()
    assert caught.value.code is ResetCode.DEADLINE
    async with asyncio.timeout(5):
        await hung_up.wait()
        await leases.free.wait()


@pytest.mark.parametrize("moment", ["before the head", "in the body"])
async def test_a_reset_from_the_hub_hangs_up_on_the_engine(
    engine: Any, bridge: Any, leases: Any, sse: Any, moment: str
) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        if moment == "in the body":
            await connection.stream_head()
            await connection.chunk(sse("x"))
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    stream = await bridge.open()
    if moment == "in the body":
        await stream.receive()
    await asked.wait()
    stream.reset(ResetCode.CANCELLED)
    async with asyncio.timeout(1):  # the promise: generation stops within a second
        await hung_up.wait()
        await leases.free.wait()
    assert leases.failed == []


async def test_a_lost_session_hangs_up_on_the_engine(engine: Any, bridge: Any, leases: Any) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    await bridge.open()
    await asked.wait()
    await bridge.hub.close("gone")
    async with asyncio.timeout(5):
        await hung_up.wait()
        await leases.free.wait()


# bodies and backpressure


async def test_a_body_in_parts_waits_for_its_end(engine: Any, bridge: Any, read: Any) -> None:
    engine.script = answers([DONE])
    stream = await bridge.open(body=None)
    for part in (b'{"a":', b"1", b"}"):
        await stream.send(part)
    await stream.send(b"", fin=True)
    await read(stream)
    assert engine.requests[0].body == b'{"a":1}'


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_long_to_hold_is_passed_on(
    engine: Any, bridge: Any, read: Any, announced: bool
) -> None:
    body = b"x" * (HELD_BODY_BYTES * 3)

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, str(len(request.body)).encode())

    engine.script = script
    stream = await bridge.open(body=None, content_length=len(body) if announced else None)
    await stream.send(body, fin=True)
    assert b"".join(await read(stream)) == str(len(body)).encode()


async def test_a_body_announced_beyond_the_limit_is_refused(engine: Any, bridge: Any, read: Any) -> None:
    stream = await bridge.open(body=None, content_length=33 * 1024 * 1024)
    assert (await stream.head()).status == 413
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == "request_too_large"
    assert engine.requests == []


async def test_a_reader_that_stops_stalls_only_its_own_request(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    """Without credit the relay leaves the engine's socket unread, and other streams go on."""
    sent: dict[str, int] = {"slow": 0}
    stalled = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        if request.body != b"slow":
            await answers([sse("quick"), DONE])(request, connection)
            return
        connection.writer.transport.set_write_buffer_limits(high=0)
        await connection.stream_head()
        piece = b"data: " + b"x" * 8000 + b"\n\n"
        for _ in range(4000):
            try:
                async with asyncio.timeout(0.5):
                    await connection.chunk(piece)
            except TimeoutError:
                stalled.set()
                await connection.writer.drain()
            sent["slow"] += 8008
        await connection.chunk(DONE)
        await connection.end()

    engine.script = script
    slow = await bridge.open(b"slow")
    async with asyncio.timeout(20):
        await stalled.wait()
    assert sent["slow"] < 16_000_000
    for _ in range(5):
        quick = await bridge.open(b"quick")
        async with asyncio.timeout(2):
            assert b"".join(await read(quick)).endswith(DONE)
    total = sum([len(piece) for piece in await read(slow)])
    assert total == 4000 * 8008 + len(DONE)


async def test_many_streams_are_answered_beside_each_other(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    everybody = asyncio.Barrier(32)

    async def script(request: Any, connection: Any) -> None:
        await everybody.wait()
        await answers([sse(request.body.decode()), DONE])(request, connection)

    engine.script = script
    streams = [await bridge.open(f"n{number}".encode()) for number in range(32)]
    bodies = await asyncio.gather(*(read(stream) for stream in streams))
    assert [b"".join(body) for body in bodies] == [sse(f"n{number}") + DONE for number in range(32)]


# privacy and counting


async def test_nothing_of_the_content_is_logged_or_counted(
    engine: Any, bridge: Any, read: Any, sse: Any, metrics: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    engine.script = answers([sse("COMPLETION"), sse(usage=USAGE), DONE])
    await read(await bridge.open(b'{"messages":"PROMPT"}'))

    async def failing(request: Any, connection: Any) -> None:
        await connection.answer(400, b'{"error":{"message":"cannot read PROMPT"}}')

    engine.script = failing
    await read(await bridge.open(b"PROMPT"))
    exposed = metrics.exposition().decode()
    for secret in ("PROMPT", "COMPLETION", "sk-porten-secret"):
        assert secret not in caplog.text
        assert secret not in exposed
    assert 'porten_node_requests_total{model="smollm2",outcome="ok",source="tunnel"} 1.0' in exposed
    assert 'porten_node_tokens_total{kind="completion",model="smollm2"} 3.0' in exposed
    assert 'porten_node_active_requests{source="tunnel"} 0.0' in exposed
