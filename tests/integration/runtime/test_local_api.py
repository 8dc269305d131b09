"""The local API on a real socket: answers, refusals, envelopes, and clients that hang up."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest

from runtime import local_api
from runtime.api_paths import BOTH
from runtime.errors import ModelUnknown, PortTaken, Warming
from runtime.http_server import AppServer
from runtime.listening import listen_tcp
from runtime.progress import LoadProgress

DONE = b"data: [DONE]\n\n"
BODY = {"model": "smollm2", "messages": []}


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def url(forwarder: Any, metrics: Any, stopping: asyncio.Event) -> AsyncIterator[str]:
    abilities = {view.model: view.capabilities for view in metrics._snapshot().models}
    app = local_api.create_app(
        forwarder=forwarder,
        snapshot=metrics._snapshot,
        capabilities=abilities.get,
        metrics=metrics,
        stopping=stopping.is_set,
    )
    listener = listen_tcp("127.0.0.1", 0)
    port = listener.getsockname()[1]
    server = AppServer(app, listener)
    task = asyncio.create_task(server.serve())
    yield f"http://127.0.0.1:{port}"
    server.stop(at_once=True)
    await task


@pytest.fixture
async def http(url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


async def test_a_stream_passes_as_it_is(engine: Any, http: httpx.AsyncClient, sse: Any, leases: Any) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for piece in (sse("a"), sse("b"), DONE):
            await connection.chunk(piece)
        await connection.end()

    engine.script = script
    answer = await http.post("/v1/chat/completions", json=BODY)
    assert answer.content == sse("a") + sse("b") + DONE
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["x-porten-model-digest"] == "sha256:feed"
    assert answer.headers["x-request-id"].startswith("req_")
    assert json.loads(engine.requests[0].body) == BODY
    assert leases.held == 0


async def test_the_official_client_works(engine: Any, url: str) -> None:
    async def script(request: Any, connection: Any) -> None:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
        document = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        await connection.answer(200, json.dumps(document).encode())

    engine.script = script
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "x"}]
        )
        assert answer.choices[0].message.content == "hi"
        assert [model.id async for model in client.models.list()] == ["smollm2"]
        assert (await client.models.retrieve("smollm2")).id == "smollm2"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("other")


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b"\xff", 400, "invalid_json", None),
        (b'{"x":' + b"[" * 100_000, 400, "invalid_json", None),
        (b"[]", 400, "invalid_request", "model"),
        (b"{}", 400, "invalid_request", "model"),
        (b'{"model": 7}', 400, "invalid_request", "model"),
    ],
)
async def test_a_body_that_cannot_be_meant(
    http: httpx.AsyncClient, content: bytes, status: int, code: str, param: str | None
) -> None:
    answer = await http.post("/v1/chat/completions", content=content)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)


async def test_too_large_a_body_is_refused(http: httpx.AsyncClient) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b"x" * 1024 * 1024

    try:
        answer = await http.post("/v1/chat/completions", content=body())
    except httpx.WriteError:
        return  # the server hung up before we were done: refused all the same
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


async def test_faults_get_their_status(http: httpx.AsyncClient, leases: Any) -> None:
    leases.refuse = ModelUnknown("other")
    answer = await http.post("/v1/chat/completions", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert answer.json()["request_id"].startswith("req_")
    leases.refuse = Warming("smollm2", LoadProgress("loading"))
    answer = await http.post("/v1/chat/completions", json=BODY)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_what_a_model_cannot_do_is_said_before_it_is_loaded(
    http: httpx.AsyncClient, leases: Any
) -> None:
    answer = await http.post("/v1/embeddings", json={"model": "smollm2", "input": "PROMPT"})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == ("unsupported_parameter", "model")
    assert error["message"] == "The model does not do embeddings."
    assert leases.budgets == []


async def test_unknown_routes_and_methods_get_the_envelope(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/nothing", json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
    answer = await http.get("/v1/chat/completions")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"host": "rebound.example"},
        {"host": "127.0.0.1.evil.example:80"},
    ],
)
async def test_pages_from_elsewhere_are_refused(
    http: httpx.AsyncClient, engine: Any, headers: dict[str, str]
) -> None:
    answer = await http.post("/v1/chat/completions", json=BODY, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert engine.requests == []


async def test_programs_on_this_machine_are_not(http: httpx.AsyncClient) -> None:
    for headers in ({"origin": "http://localhost:3000"}, {"host": "localhost:11700"}, {"host": "[::1]:80"}):
        assert (await http.get("/healthz", headers=headers)).json() == {"status": "ok", "accepting": True}


async def test_a_client_that_hangs_up_ends_the_engines_work(
    engine: Any, http: httpx.AsyncClient, sse: Any, leases: Any
) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(sse("x"))
        await connection.gone()
        hung_up.set()

    engine.script = script
    async with http.stream("POST", "/v1/chat/completions", json=BODY) as answer:
        assert await anext(answer.aiter_bytes()) == sse("x")
    async with asyncio.timeout(1):
        await hung_up.wait()
        await leases.free.wait()


async def test_an_engine_killed_in_mid_stream_ends_it_with_an_error_event(
    engine: Any, http: httpx.AsyncClient, sse: Any
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(sse("x"))
        connection.writer.close()

    engine.script = script
    content = (await http.post("/v1/chat/completions", json=BODY)).content
    assert content.startswith(sse("x"))
    last = content.removeprefix(sse("x"))
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"] == "engine_error"
    assert b"[DONE]" not in content


async def test_an_engine_killed_in_mid_document_cuts_the_connection(
    engine: Any, http: httpx.AsyncClient
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.head(200, content_type="application/json", transfer_encoding="chunked")
        for _ in range(3):
            await connection.chunk(b'{"a":')
            await asyncio.sleep(0.01)
        connection.writer.close()

    engine.script = script
    with pytest.raises(httpx.RemoteProtocolError):
        await http.post("/v1/chat/completions", json=BODY)


async def test_a_stopping_node_says_so(http: httpx.AsyncClient, stopping: asyncio.Event) -> None:
    stopping.set()
    answer = await http.post("/v1/chat/completions", json=BODY)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_available_node")
    assert (await http.get("/healthz")).json()["accepting"] is False


async def test_metrics_name_no_model_that_a_caller_made_up(
    engine: Any, http: httpx.AsyncClient, leases: Any
) -> None:
    leases.refuse = ModelUnknown("SECRET")
    await http.post("/v1/chat/completions", json=BODY | {"model": "SECRET"})
    exposed = (await http.get("/metrics")).text
    assert "SECRET" not in exposed
    assert 'outcome="model_not_found",source="local"} 1.0' in exposed


MESSAGE = {"model": "smollm2", "messages": [], "max_tokens": 4}


class TestProtocols:
    """A model whose engine speaks all there is."""

    @pytest.fixture
    async def http(self, forwarder: Any, metrics: Any, leases: Any) -> AsyncIterator[httpx.AsyncClient]:
        leases.endpoint = replace(leases.endpoint, protocols=BOTH)
        app = local_api.create_app(
            forwarder=forwarder,
            snapshot=metrics._snapshot,
            capabilities=lambda _model: {"chat", *BOTH},
            metrics=metrics,
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            yield client

    @pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
    async def test_an_answer_passes_as_it_is(self, engine: Any, http: httpx.AsyncClient, path: str) -> None:
        async def script(request: Any, connection: Any) -> None:
            await connection.answer(200, b'{"usage": {"input_tokens": 1, "output_tokens": 2}}')

        engine.script = script
        answer = await http.post(path, json=MESSAGE)
        assert answer.json()["usage"]["output_tokens"] == 2
        assert engine.requests[0].path == path
        assert 'porten_node_tokens_total{kind="completion"' in (await http.get("/metrics")).text

    async def test_an_engines_refusal_is_told_in_anthropics_words(
        self, engine: Any, http: httpx.AsyncClient
    ) -> None:
        async def script(request: Any, connection: Any) -> None:
            await connection.answer(400, b'{"error": {"message": "no", "type": "invalid_request_error"}}')

        engine.script = script
        refused = (await http.post("/v1/messages", json=MESSAGE)).json()
        assert (refused["type"], refused["error"]["message"]) == ("error", "no")
        assert refused["error"]["type"] == "invalid_request_error"

    async def test_what_needs_a_store_is_refused(self, engine: Any, http: httpx.AsyncClient) -> None:
        asked = {"model": "smollm2", "input": "x", "previous_response_id": "resp_1"}
        refused = await http.post("/v1/responses", json=asked)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
        broken = await http.post("/v1/messages", content=b"{")
        assert (broken.status_code, broken.json()["type"]) == (400, "error")
        assert engine.requests == []


async def test_an_endpoint_that_the_engine_lacks_is_refused_before_anything_is_loaded(
    http: httpx.AsyncClient, leases: Any
) -> None:
    for path in ("/v1/responses", "/v1/messages"):
        refused = await http.post(path, json=MESSAGE)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")
    assert leases.budgets == []


async def test_how_far_a_load_is_can_be_asked(http: httpx.AsyncClient) -> None:
    told = (await http.get("/v1/models/smollm2/warming")).json()
    assert (told["model"], told["state"], told["phase"]) == ("smollm2", "ready", "ready")
    assert set(told) == {"model", "state", "phase", "bytes_done", "bytes_total", "percent", "eta_s"}
    assert (await http.get("/v1/models/unknown/warming")).status_code == 404


def test_a_taken_port_is_said_to_be() -> None:
    with listen_tcp("127.0.0.1", 0) as first, pytest.raises(PortTaken, match="local_port"):
        listen_tcp("127.0.0.1", first.getsockname()[1])
