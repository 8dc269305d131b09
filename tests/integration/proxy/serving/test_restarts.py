"""The Hub stops, or the proxy takes a new configuration: what is under way goes on to its end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"


@pytest.fixture
def go_on() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def under_way(site: Any, sse: Any, go_on: asyncio.Event) -> AsyncIterator[AsyncIterator[str]]:
    """The lines of an answer that has begun, and goes on when it is told to."""

    async def pauses(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        await stream.send(sse.chunk("first"))
        await go_on.wait()
        await sse.end(stream)

    await site.joined(script=pauses)
    body = {"model": sse.model, "messages": [{"role": "user", "content": "x"}], "stream": True}
    headers = {"authorization": f"Bearer {await site.key()}"}
    async with site.client() as app, app.stream("POST", CHAT, json=body, headers=headers) as answer:
        lines = answer.aiter_lines()
        assert "first" in await anext(lines)
        yield lines


@pytest.mark.parametrize("settings", [{"drain_s": 60}])
async def test_a_hub_that_stops_finishes_what_it_began(site: Any, under_way: Any, go_on: Any) -> None:
    site.server.stop()
    secrets = {"authorization": "Bearer sk-porten-secret", "cookie": "__Host-porten-session=secret-cookie"}
    async with site.client() as app, asyncio.timeout(10):
        while (await app.get("/healthz", headers=secrets)).status_code != 502:
            await asyncio.sleep(0.01)
    assert "/healthz" in site.front.said
    assert "secret" not in site.front.said, "an error is logged with its request"
    go_on.set()
    assert [line async for line in under_way if line] == ["data: [DONE]"]


@pytest.mark.parametrize("make_front", ["nginx"], indirect=True)
async def test_an_nginx_that_reloads_keeps_tunnels_and_answers(site: Any, under_way: Any, go_on: Any) -> None:
    site.front.process.signal(signal.SIGHUP)
    await site.front.process.wait_for_line("gracefully shutting down")
    async with site.client() as app:
        assert (await app.get("/healthz")).status_code == httpx.codes.OK
    [node] = site.hub.registry.snapshot().values()
    assert node.accepting
    go_on.set()
    assert [line async for line in under_way if line] == ["data: [DONE]"]
