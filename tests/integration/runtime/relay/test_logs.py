"""What the relay logs and counts of a request, and that nothing of its content is in it."""

import logging
from typing import Any

import pytest

from runtime.errors import EngineConnectionLost, EngineUnavailable
from tests.integration.runtime.relay.answering import DONE, USAGE, answers
from tunnel.errors import StreamReset


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
