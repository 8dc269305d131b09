"""Whatever is sent, the answer is the right envelope with the right status."""

import json
from collections.abc import AsyncIterator

import httpx
import psutil
import pytest

from benchmarks.stacks.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/chat/completions"
SECRET = "the-otter-sleeps-at-noon"
GOOD = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}


def assert_envelope(response: httpx.Response, status: int, code: str | None, kind: str) -> None:
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == kind
    if code is not None:
        assert body["error"]["code"] == code
    assert body["request_id"] == response.headers["x-request-id"]
    assert SECRET not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"model": "' + SECRET.encode() + b'", ',
        b"[" * 100_000,
        b'{"model": 1e999}',
    ],
)
async def test_malformed_bodies(http: httpx.AsyncClient, body: bytes) -> None:
    assert_envelope(await http.post(CHAT, content=body), 400, None, "invalid_request_error")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"model": None}, "model"),
        ({"model": 7}, "model"),
        ({"model": ["a"]}, "model"),
        ({"stream": "yes"}, "stream"),
        ({"max_tokens": "many"}, "max_tokens"),
    ],
)
async def test_wrong_types_name_the_parameter(
    http: httpx.AsyncClient, change: dict[str, object], param: str
) -> None:
    response = await http.post(CHAT, json=GOOD | change)
    assert_envelope(response, 400, None, "invalid_request_error")
    assert response.json()["error"]["param"] == param


async def test_no_model(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json={"messages": []})
    assert_envelope(response, 400, None, "invalid_request_error")
    assert response.json()["error"]["param"] == "model"


async def test_what_only_the_engine_can_judge_comes_back_in_the_envelope(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json={"model": MODEL, "messages": SECRET})
    assert_envelope(response, 400, None, "invalid_request_error")


async def test_a_hundred_megabytes_are_refused_in_bounded_memory(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    hub = psutil.Process(stack.hub.process.pid)
    before = hub.memory_info().rss

    async def flood() -> AsyncIterator[bytes]:
        yield b'{"model": "x", "messages": "'
        for _ in range(100):
            yield b"a" * 1024 * 1024

    announced = await http.post(CHAT, content=b"a" * 100 * 1024 * 1024)
    assert_envelope(announced, 413, "request_too_large", "invalid_request_error")
    try:
        chunked = await http.post(CHAT, content=flood())
    except (httpx.WriteError, httpx.RemoteProtocolError, httpx.ReadError):
        pass  # the Hub had answered and hung up while the flood still came
    else:
        assert_envelope(chunked, 413, "request_too_large", "invalid_request_error")
    assert hub.memory_info().rss - before < 120 * 1024 * 1024
    assert (await http.post(CHAT, json=GOOD)).status_code == 200


@pytest.mark.parametrize("header", [None, "Bearer", "Basic abc", "Bearer sk-porten-short", "Bearer \u00e9"])
async def test_bad_keys_all_look_alike(stack: Stack, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    async with httpx.AsyncClient(base_url=stack.base_url, trust_env=False) as anonymous:
        response = await anonymous.post(CHAT, json=GOOD, headers=headers)
    assert_envelope(response, 401, "invalid_api_key", "authentication_error")
    assert response.json()["error"]["message"]


async def test_unknown_routes_and_methods(http: httpx.AsyncClient) -> None:
    assert_envelope(await http.get("/nothing/here"), 404, None, "invalid_request_error")
    assert_envelope(await http.get(CHAT), 405, None, "invalid_request_error")
    assert_envelope(await http.delete("/models"), 405, None, "invalid_request_error")


async def test_a_narrowing_header_that_means_nothing_is_refused(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, json=GOOD, headers={"X-Porten-Region": "eu de; drop"})
    assert_envelope(response, 400, None, "invalid_request_error")


async def test_the_hub_and_node_serve_on_and_logged_nothing_of_it(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    body = json.dumps(GOOD | {"messages": [{"role": "user", "content": SECRET}]})
    assert (await http.post(CHAT, content=body)).status_code == 200
    for log in (stack.hub.log, stack.node.log):
        assert SECRET not in log.read_text(errors="replace")
