"""Traces of requests: joined to the caller's, handed on to the node, and without a word of what was said."""

import asyncio
import gzip
import subprocess
import sys

import pytest

from hub.config import HubConfig
from hub.errors import ConfigInvalid
from tests.otlp import receiving
from tunnel.tracing import NO_SPAN, NO_TRACING, open_tracing

CHAT = "/v1/chat/completions"
SECRET = "zanzibar-otter-41873"
ASK = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def receiver():
    with receiving() as found:
        yield found


@pytest.fixture
def settings(receiver):
    return {"otlp_endpoint": receiver.url}


async def ask(bench, http, **headers):
    organisation = await bench.organisation()
    node = await bench.node(organisation)
    secret = await bench.key(organisation)
    answer = await http.post(CHAT, json=ASK, headers={"authorization": f"Bearer {secret}"} | headers)
    await asyncio.to_thread(bench.hub.tracing.close)
    return node, secret, answer


async def test_a_request_is_traced_from_its_caller_to_its_node(bench, http, receiver):
    node, _, answer = await ask(bench, http, traceparent=f"00-{TRACE}-{PARENT}-01")
    assert answer.status_code == 200
    [request], [route], [tunnel] = map(receiver.named, ("porten.request", "porten.route", "porten.tunnel"))
    assert {span.trace_id for span in receiver.spans} == {TRACE}
    assert (request.parent_id, route.parent_id, tunnel.parent_id) == (
        PARENT,
        request.span_id,
        request.span_id,
    )
    assert request.attributes["porten.request_id"] == answer.headers["x-request-id"]
    assert (request.attributes["porten.status"], request.attributes["porten.code"]) == (200, "ok")
    assert tunnel.attributes == {
        "porten.node_id": node.node_id,
        "porten.model": "tiny",
        "porten.outcome": "ok",
        "porten.prompt_tokens": 7,
        "porten.completion_tokens": 3,
    }
    assert node.seen[0]["headers"]["traceparent"] == f"00-{TRACE}-{tunnel.span_id}-01"


async def test_nothing_that_was_said_and_no_key_is_in_a_span(bench, http, receiver):
    _, secret, _ = await ask(bench, http)
    headers = {"authorization": f"Bearer {secret}"}
    await http.post(CHAT, json=ASK | {"model": SECRET}, headers=headers)
    await http.post(CHAT, content=b'{"' + SECRET.encode(), headers=headers)
    await asyncio.to_thread(bench.hub.tracing.close)
    sent = b"".join(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body for body in receiver.bodies)
    assert b"porten.request" in sent
    assert SECRET.encode() not in sent
    assert secret.encode() not in sent


async def test_a_caller_that_keeps_no_trace_is_not_traced(bench, http, receiver):
    node, _, answer = await ask(bench, http, traceparent=f"00-{TRACE}-{PARENT}-00")
    assert answer.status_code == 200
    assert receiver.spans == []
    assert node.seen[0]["headers"]["traceparent"].endswith("-00")


@pytest.mark.parametrize("parent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "00-" + "f" * 500])
async def test_a_parent_that_is_none_begins_a_trace_of_its_own(bench, http, receiver, parent):
    await ask(bench, http, traceparent=parent)
    [request] = receiver.named("porten.request")
    assert request.parent_id == ""


async def test_a_refusal_is_traced_too(bench, http, receiver):
    await http.post(CHAT, json=ASK, headers={"authorization": "Bearer nonsense"})
    await asyncio.to_thread(bench.hub.tracing.close)
    [request] = receiver.named("porten.request")
    assert (request.attributes["porten.status"], request.attributes["porten.code"]) == (
        401,
        "invalid_api_key",
    )


class TestOff:
    @pytest.fixture
    def settings(self):
        return {}

    async def test_the_node_is_told_nothing(self, bench, http, receiver):
        node, _, _ = await ask(bench, http, traceparent=f"00-{TRACE}-{PARENT}-01")
        assert "traceparent" not in node.seen[0]["headers"]
        assert receiver.bodies == []


def test_off_nothing_is_loaded_and_a_step_is_no_object():
    code = "import sys, hub.serve, runtime.node; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert open_tracing(None, service="x", version="0") is NO_TRACING
    with NO_TRACING.span("a", "b", c=1) as span:
        assert span is NO_SPAN
        assert span.child("d", e=2) is NO_SPAN


def test_where_the_library_is_missing_the_remedy_is_said(monkeypatch, tmp_path):
    from hub.assembly import _tracing

    monkeypatch.setitem(sys.modules, "tunnel.otlp", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'porten\[telemetry\]'"):
        _tracing(HubConfig(data_dir=tmp_path, otlp_endpoint="http://127.0.0.1:1"))
