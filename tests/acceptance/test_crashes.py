"""kill -9 of each process in turn: nothing lies, nothing is left behind, all of it comes back."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator

import httpx
import openai
import psutil
import pytest

from benchmarks.stacks.stack import MODEL, Stack, until_gone

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/chat/completions"
LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "max_tokens": 3000,
    "stream": True,
    "ignore_eos": True,
}
SHORT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


def engines(stack: Stack) -> list[psutil.Process]:
    """The processes under the node's daemon."""
    return psutil.Process(stack.node.process.pid).children(recursive=True)


async def data_lines(response: httpx.Response) -> AsyncIterator[str]:
    assert response.status_code == 200, await response.aread()
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line.removeprefix("data: ")


async def recovered(http: httpx.AsyncClient) -> None:
    """Ask until it is answered: an engine that died twice in a row is given a rest of seconds first."""
    async with asyncio.timeout(60):
        while (await http.post(CHAT, json=SHORT)).status_code != 200:
            await asyncio.sleep(0.2)


async def test_a_killed_engine_gives_an_error_event_and_the_next_request_reloads(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    lines = []
    async with http.stream("POST", CHAT, json=LONG) as response:
        async for line in data_lines(response):
            lines.append(line)
            if len(lines) == 5:
                for engine in engines(stack):
                    engine.kill()
    assert "[DONE]" not in lines
    error = json.loads(lines[-1])["error"]
    assert error["code"] in ("engine_error", "node_lost")
    assert error["type"] == "upstream_error"
    answer = await http.post(CHAT, json=SHORT)
    assert answer.status_code == 200, answer.text


async def test_the_official_client_sees_a_cut_stream_as_an_error(
    client: openai.AsyncOpenAI, http: httpx.AsyncClient, stack: Stack
) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "Write a very long story."}],
        max_tokens=3000,
        stream=True,
        extra_body={"ignore_eos": True},
    )

    await anext(stream)
    for engine in engines(stack):
        engine.kill()
    with pytest.raises(openai.APIError):
        [_ async for _ in stream]
    await recovered(http)


async def test_a_killed_node_leaves_no_engine_behind(http: httpx.AsyncClient, stack: Stack) -> None:
    assert (await http.post(CHAT, json=SHORT)).status_code == 200
    left = engines(stack)
    assert left
    lines = []
    async with http.stream("POST", CHAT, json=LONG) as response:
        async for line in data_lines(response):
            lines.append(line)
            if len(lines) == 3:
                await stack.node.process.kill()
    assert json.loads(lines[-1])["error"]["code"] == "node_lost"
    assert await until_gone(left) == []
    refusal = await http.post(CHAT, json=SHORT)
    assert (refusal.status_code, refusal.json()["error"]["code"]) == (503, "no_available_node")
    await stack.node.start()
    assert (await http.post(CHAT, json=SHORT)).status_code == 200


def usage_rows(stack: Stack) -> dict[str, int]:
    """Request id → completion tokens, as the database has them."""
    with sqlite3.connect(f"file:{stack.hub.data / 'hub.db'}?mode=ro", uri=True) as database:
        rows = database.execute("SELECT request_id, completion_tokens FROM usage_records").fetchall()
    return dict(rows)


async def test_a_killed_hub_loses_no_usage_and_the_node_comes_back_by_itself(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    answered: dict[str, int] = {}
    first_answers = asyncio.Event()

    async def ask_until_it_dies() -> None:
        while True:
            try:
                response = await http.post(CHAT, json=SHORT)
            except httpx.TransportError:
                return
            if response.status_code == 200:
                answered[response.headers["x-request-id"]] = response.json()["usage"]["completion_tokens"]
            if len(answered) >= 12:
                first_answers.set()

    askers = [asyncio.create_task(ask_until_it_dies()) for _ in range(4)]
    await asyncio.wait_for(first_answers.wait(), 120)
    said = stack.node.process.lines_so_far()
    await stack.hub.process.kill()
    await asyncio.gather(*askers)
    await stack.hub.start()
    await stack.node.connected(after=said)
    assert (await http.post(CHAT, json=SHORT)).status_code == 200
    await stack.hub.stop()
    recorded = usage_rows(stack)
    assert {request: recorded.get(request) for request in answered} == answered
    said = stack.node.process.lines_so_far()
    await stack.hub.start()
    await stack.node.connected(after=said)


async def test_a_node_that_is_stopped_leaves_nothing(http: httpx.AsyncClient, stack: Stack) -> None:
    assert (await http.post(CHAT, json=SHORT)).status_code == 200
    left = engines(stack)
    assert left
    assert await stack.node.process.stop() == 0
    assert await until_gone(left, timeout_s=1) == []
    await stack.node.start()
