"""Many streams through one node: interleaved, independent of each other, in bounded memory."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import openai
import psutil
import pytest

from benchmarks.stacks.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
MEBIBYTE = 1024 * 1024


def request(tokens: int, number: int = 0) -> dict[str, object]:
    """A chat that generates exactly `tokens` tokens."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Count from {number} upwards."}],
        "max_tokens": tokens,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }


async def chunks_of(http: httpx.AsyncClient, body: dict[str, object]) -> AsyncIterator[str]:
    async with http.stream("POST", "/chat/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


async def test_32_streams_complete_and_interleave(http: httpx.AsyncClient, stack: Stack) -> None:
    order: list[int] = []
    processes = [psutil.Process(p.pid) for p in (stack.hub.process, stack.node.process)]
    before = [process.memory_info().rss for process in processes]

    async def read(number: int) -> list[str]:
        lines = []
        async for line in chunks_of(http, request(16, number)):
            lines.append(line)
            order.append(number)
        return lines

    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(
        base_url=http.base_url, headers=http.headers, timeout=200, limits=limits, trust_env=False
    ) as wide:
        http = wide
        answers = await asyncio.gather(*(read(number) for number in range(32)))
    for lines in answers:
        assert lines[-1] == "[DONE]"
        # Not the chunks with content: a token that has no text of its own (`<|im_start|>`) brings none.
        assert json.loads(lines[-2])["usage"]["completion_tokens"] == 16
    first_end = min(len(order) - 1 - order[::-1].index(number) for number in range(32))
    assert len(set(order[:first_end])) > 1, "no two streams overlapped"
    for process, rss in zip(processes, before, strict=True):
        assert process.memory_info().rss - rss < 64 * MEBIBYTE


def raw_request(stack: Stack, body: dict[str, object]) -> bytes:
    content = json.dumps(body).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {stack.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    ).encode() + content


@contextlib.asynccontextmanager
async def stalled_client(stack: Stack, body: dict[str, object]) -> AsyncIterator[socket.socket]:
    """A client that sends its request through a tiny socket buffer and then never reads."""
    url = urlsplit(stack.base_url)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, (url.hostname, url.port))
        await loop.sock_sendall(raw, raw_request(stack, body))
        yield raw


async def test_a_client_that_stops_reading_stalls_nobody(http: httpx.AsyncClient, stack: Stack) -> None:
    processes = [psutil.Process(p.pid) for p in (stack.hub.process, stack.node.process)]
    before = [process.memory_info().rss for process in processes]
    async with stalled_client(stack, request(4000)) as raw:
        assert await asyncio.get_running_loop().sock_recv(raw, 16), "its answer has begun"
        for number in range(3):
            lines = [line async for line in chunks_of(http, request(24, number))]
            assert lines[-1] == "[DONE]"
        for process, rss in zip(processes, before, strict=True):
            assert process.memory_info().rss - rss < 32 * MEBIBYTE


async def quiet(engine: psutil.Process) -> None:
    """Wait until the engine computes no more: for a fifth of a second it used a tenth of a core at most."""
    while True:
        before = sum(engine.cpu_times()[:2])
        await asyncio.sleep(0.2)
        if sum(engine.cpu_times()[:2]) - before <= 0.02:
            return


async def test_the_engine_stops_within_a_second_of_its_clients_leaving(
    client: openai.AsyncOpenAI, stack: Stack
) -> None:
    streams = [
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Write a very long story, number {number}."}],
            max_tokens=6000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for number in range(4)
    ]
    for stream in streams:
        assert await anext(aiter(stream))
    [engine] = psutil.Process(stack.node.process.pid).children()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await quiet(engine)
    for stream in streams:
        await stream.close()
    async with asyncio.timeout(1.2):  # the second that is promised, and the look that finds it kept
        await quiet(engine)


async def test_a_client_that_leaves_frees_its_slot(client: openai.AsyncOpenAI, stack: Stack) -> None:
    """With every slot taken by long answers that are then abandoned, a new request is served at once."""
    streams = [
        await client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": f"Write a very long story, number {number}."}],
            max_tokens=6000,
            stream=True,
            extra_body={"ignore_eos": True},
        )
        for number in range(8)
    ]
    for stream in streams:
        assert await anext(aiter(stream))
        await stream.close()
    async with asyncio.timeout(30):
        answer = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=2
        )
    assert answer.choices
    status = json.loads(await stack.node.cli("status", "--json"))
    assert sum(replica["running"] + replica["waiting"] for replica in status["replicas"]) == 0
