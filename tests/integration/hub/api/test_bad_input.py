"""Bad input: the right envelope, the right status, nothing of the content anywhere."""

import asyncio
import json
import logging
import os

import httpx
import psutil
import pytest

CHAT = "/v1/chat/completions"
SECRET = "a prompt that nobody may find"


@pytest.fixture
async def auth(bench):
    organisation = await bench.organisation()
    await bench.node(organisation)
    return {"authorization": f"Bearer {await bench.key(organisation)}"}


def body(**changes):
    return {"model": "tiny", "messages": [{"role": "user", "content": SECRET}]} | changes


@pytest.mark.parametrize(
    ("content", "status", "code", "param"),
    [
        (b"", 400, "invalid_json", None),
        (b'{"messages": "' + SECRET.encode(), 400, "invalid_json", None),
        (b'{"x":' + b"[" * 200_000, 400, "invalid_json", None),
        (b"[]", 400, "invalid_type", None),
        (json.dumps(body(model=None)).encode(), 400, "invalid_type", "model"),
        (json.dumps({"messages": [SECRET]}).encode(), 400, "missing_required_parameter", "model"),
        (json.dumps(body(stream=SECRET)).encode(), 400, "invalid_type", "stream"),
        (json.dumps(body(model="unknown")).encode(), 404, "model_not_found", "model"),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/responses", "/v1/messages", "/v1/rerank"])
async def test_malformed_bodies(http, auth, caplog, path, content, status, code, param):
    caplog.set_level(logging.DEBUG)
    response = await http.post(path, content=content, headers=auth)
    error = response.json()
    assert response.status_code == status
    assert (error["error"]["code"], error["error"]["param"]) == (code, param)
    assert error["request_id"] == response.headers["x-request-id"]
    assert set(error) - {"type"} == {"error", "request_id"}
    assert ("type" in error) == (path == "/v1/messages")
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert SECRET not in response.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/", "/v1/chat", "/v1/chat/completions/"])
async def test_unknown_routes(http, path):
    response = await http.post(path, json={})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_url")
    assert response.headers["x-request-id"] == response.json()["request_id"]


async def test_wrong_methods(http):
    response = await http.get(CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert (await http.delete("/v1/models")).status_code == 405


@pytest.mark.parametrize(
    "path",
    [
        CHAT,
        "/v1/responses",
        "/v1/messages",
        "/v1/rerank",
        "/v1/models",
        "/v1/models/tiny",
        "/v1/models/tiny/warming",
    ],
)
async def test_no_key_is_told_from_no_other(http, path):
    method = "GET" if path.startswith("/v1/models") else "POST"
    answers = [
        await http.request(method, path, headers=headers)
        for headers in ({}, {"authorization": "Bearer x"}, {"authorization": "Basic " + "a" * 5000})
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1
    assert answers[0].headers["www-authenticate"] == "Bearer"


async def test_a_clients_request_id_is_not_ours(http, auth):
    response = await http.get("/v1/models", headers=auth | {"x-request-id": "mine"})
    assert response.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/rerank"])
@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"model": ["tiny"]}, "model"),
        ({"model": "tiny", "stream": 1}, "stream"),
        ({"model": "tiny", "max_tokens": "9"}, "max_tokens"),
        ({"model": "x" * 201}, "model"),
    ],
)
async def test_wrong_types_name_the_parameter(bench, http, auth, path, said, param):
    response = await http.post(path, json={"messages": [], **said}, headers=auth)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    (node,) = bench.nodes.values()
    assert node.seen == []


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages", "/v1/rerank"])
async def test_too_large_a_body_is_refused_at_every_endpoint(bench, http, auth, path):
    response = await http.post(path, content=b" " * (bench.hub.config.body_limit_bytes + 1), headers=auth)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert bench.hub.limits.body_bytes == 0


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_of_100_mb_is_refused_in_bounded_memory(bench, http, auth, declared):
    piece = b"x" * 65536
    process = psutil.Process(os.getpid())
    before = process.memory_info().rss
    peak = []

    async def pieces():
        for _ in range(1600):
            peak.append(process.memory_info().rss)
            yield piece

    headers = auth | ({"content-length": str(1600 * 65536)} if declared else {})
    response = await http.post(CHAT, content=pieces(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert max(peak) - before < 64 * 1024 * 1024
    assert (await http.get("/v1/models", headers=auth)).status_code == 200
    assert bench.hub.limits.body_bytes == 0


async def test_a_refusal_need_not_wait_for_the_body(bench, auth):
    reader, writer = await asyncio.open_connection(*bench.url.removeprefix("http://").split(":"))
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {auth['authorization']}\r\n"
    writer.write(f"{head}content-length: 104857600\r\nexpect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(5):
        assert b" 413 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_an_unexpected_exception_tells_nothing(bench, http, auth, caplog, monkeypatch):
    def breaks(*args, **kwargs):
        raise RuntimeError(SECRET)

    monkeypatch.setattr(bench.hub.dispatcher, "begin", breaks)
    response = await http.post(CHAT, json=body(), headers=auth)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert SECRET not in response.text
    assert SECRET not in caplog.text
    failures = [record for record in caplog.records if getattr(record, "event", "") == "api.failed"]
    assert failures[0].request_id == response.headers["x-request-id"]
    assert failures[0].error.startswith("RuntimeError at ")


async def test_a_request_leaves_nothing_of_itself_behind(bench, http, auth, caplog, config):
    caplog.set_level(logging.DEBUG)
    assert (await http.post(CHAT, json=body(stream=True), headers=auth)).status_code == 200
    await bench.usage(1)
    key = auth["authorization"].removeprefix("Bearer ")
    for path in config.data_dir.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert SECRET.encode() not in content
        assert key.encode() not in content
    assert SECRET not in caplog.text
    assert key not in caplog.text


class TestLimits:
    @pytest.fixture
    def settings(self):
        return {"max_concurrent_per_key": 1}

    async def test_one_key_cannot_take_everything(self, bench, http, auth):
        (node,) = bench.nodes.values()

        async def thinks(stream, request):
            await asyncio.Event().wait()

        node.script = thinks
        first = asyncio.create_task(http.post(CHAT, json=body(), headers=auth))
        await node.started.wait()
        async with httpx.AsyncClient(base_url=bench.url, trust_env=False) as other:
            response = await other.post(CHAT, json=body(), headers=auth)
        assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert response.headers["retry-after"]
        first.cancel()
        await asyncio.wait([first])
        await node.cancelled.wait()
