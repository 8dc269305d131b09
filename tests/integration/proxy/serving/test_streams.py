"""What a reverse proxy could spoil between an app, the Hub and a node: pace, silence, size and leaving."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"
MIB = 1024 * 1024


@pytest.fixture
async def ask(site: Any, sse: Any) -> Callable[..., Any]:
    """What an app sends: the arguments of httpx, with a key."""
    secret = await site.key()

    def ask(content: str = "x", **changes: Any) -> dict[str, Any]:
        body = {"model": sse.model, "messages": [{"role": "user", "content": content}], "stream": True}
        return {"json": body | changes, "headers": {"authorization": f"Bearer {secret}"}}

    return ask


async def test_chunks_arrive_one_by_one(site: Any, ask: Any, sse: Any) -> None:
    """The node sends the next chunk only when the app has the one before: a proxy that buffers ends this."""
    arrived = asyncio.Semaphore(0)

    async def in_step(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        for number in range(50):
            await stream.send(sse.chunk(f"word {number}"))
            await arrived.acquire()
        await sse.end(stream)

    await site.joined(script=in_step)
    lines = []
    async with site.client() as app, app.stream("POST", CHAT, **ask()) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            if line:
                lines.append(line)
                arrived.release()
    assert [f"word {number}" in line for number, line in enumerate(lines[:50])] == [True] * 50
    assert lines[50:] == ["data: [DONE]"]


async def test_a_body_of_eight_mebibytes_goes_up_whole(site: Any, ask: Any, sse: Any) -> None:
    got: list[bytes] = []

    async def take(stream: Any, body: bytes) -> None:
        got.append(body)
        await stream.send_head(sse.head)
        await sse.end(stream)

    await site.joined(script=take)
    image = hashlib.shake_256(b"image").hexdigest(4 * MIB)
    async with site.client() as app:
        answer = await app.post(CHAT, **ask(image))
    assert answer.text.endswith("data: [DONE]\n\n")
    [body] = got
    assert len(body) > 8 * MIB
    assert json.loads(body)["messages"][0]["content"] == image


async def test_an_app_that_leaves_stops_the_node(site: Any, ask: Any, sse: Any) -> None:
    async def endless(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        while True:
            await stream.send(sse.chunk("word"))
            await asyncio.sleep(0.01)

    node = await site.joined(script=endless)
    async with site.client() as app, app.stream("POST", CHAT, **ask()) as answer:
        await anext(answer.aiter_lines())
    async with asyncio.timeout(1):
        await node.cancelled.wait()


async def test_an_app_that_leaves_before_the_first_byte_stops_the_node_too(site: Any, ask: Any) -> None:
    started = asyncio.Event()

    async def thinks(stream: Any, body: bytes) -> None:
        started.set()
        await asyncio.Event().wait()

    node = await site.joined(script=thinks)
    async with site.client() as app:
        asking = asyncio.create_task(app.post(CHAT, **ask()))
        await started.wait()
        asking.cancel()
        await asyncio.wait([asking])
    async with asyncio.timeout(1):
        await node.cancelled.wait()


async def test_a_silent_stream_lives_as_long_as_the_file_says(
    site: Any, make_front: Any, ask: Any, sse: Any
) -> None:
    """Two proxies that differ in one number: the one that waits a second cuts, the other does not."""
    go_on, cut = asyncio.Event(), asyncio.Event()

    async def pauses(stream: Any, body: bytes) -> None:
        await stream.send_head(sse.head)
        await stream.send(sse.chunk("first"))
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            cut.set()
            raise
        await sse.end(stream)

    await site.joined(script=pauses)
    impatient = make_front("impatient")
    async with (
        impatient.running(site.server, site.authority, **{"read_timeout 660s": "read_timeout 1s"}),
        site.client(impatient) as other,
        site.client() as app,
        app.stream("POST", CHAT, **ask()) as answer,
    ):
        lines = answer.aiter_lines()
        assert "first" in await anext(lines)
        assert "[DONE]" not in await cut_short(other, ask())
        await cut.wait()
        go_on.set()  # this one has been silent for longer
        assert [line async for line in lines if line] == ["data: [DONE]"]


async def cut_short(app: httpx.AsyncClient, request: dict[str, Any]) -> str:
    """What came of an answer before it broke off; Caddy 2.6 ends it as though it were whole."""
    got = ""
    with contextlib.suppress(httpx.RemoteProtocolError):
        async with app.stream("POST", CHAT, **request) as answer:
            async for text in answer.aiter_text():
                got += text
    assert "first" in got
    return got


async def test_a_silent_tunnel_lives_as_long_as_the_file_says(site: Any, make_front: Any, until: Any) -> None:
    """The Hub speaks every 15 s; a proxy that waits for one second hangs up in between."""
    patient = await site.joined()
    impatient = make_front("impatient")
    async with impatient.running(site.server, site.authority, **{"read_timeout 120s": "read_timeout 1s"}):
        cut_off = await site.joined(impatient.tunnel_url)
        await until(lambda: "waiting" in cut_off.states, "the impatient proxy hangs up")
        await cut_off.stop()
    assert patient.states == ["connecting", "connected"]
    assert site.offered(patient)


async def test_a_body_is_passed_on_while_it_comes(site: Any, ask: Any, until: Any) -> None:
    """The Hub has its beginning while the rest is still to come: no prompt waits in the proxy's files."""
    before, sent = asyncio.Event(), 256 * 1024

    async def body() -> AsyncIterator[bytes]:
        yield b"{" * sent
        await before.wait()
        yield b"}"

    async with site.client() as app:
        headers = ask()["headers"] | {"content-length": str(sent + 1)}
        asking = asyncio.create_task(app.post(CHAT, content=body(), headers=headers))
        await until(lambda: asking.done() or site.hub.limits.body_bytes >= sent // 2, "it has the first half")
        assert not asking.done(), await asking
        before.set()
        assert (await asking).json()["error"]["code"] == "invalid_json"
