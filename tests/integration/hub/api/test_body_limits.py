"""Bodies that never end: they are ended, and no organisation's take the room of another's."""

import asyncio
import contextlib

import pytest

from hub import limits
from hub.api import enroll, request

CHAT = "/v1/chat/completions"
ASK = {"model": "tiny", "messages": []}


@pytest.fixture
async def post(bench):
    """Begins a post whose body is longer than what is sent of it; gives the reader of its answer."""
    writers = []

    async def begun(path, sent, authorization=""):
        host, port = bench.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writers.append(writer)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n"
        writer.write(f"{head}content-length: {len(sent) + 1}\r\n\r\n".encode() + sent)
        await writer.drain()
        return reader

    yield begun
    for writer in writers:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def status(reader):
    async with asyncio.timeout(10):
        return int((await reader.readline()).split()[1])


async def test_bodies_that_do_not_come_are_ended(bench, post, monkeypatch):
    monkeypatch.setattr(request, "BODY_SILENCE_S", 0.1)
    monkeypatch.setattr(enroll, "BODY_S", 0.1)
    key = await bench.key(await bench.organisation())
    readers = [await post(CHAT, b"{", f"Bearer {key}"), await post("/enroll/v1/join", b"{")]
    assert [await status(reader) for reader in readers] == [400, 400]
    assert bench.hub.limits.body_bytes == 0


async def test_one_organisations_bodies_leave_room_for_anothers(bench, http, post, script, monkeypatch):
    monkeypatch.setattr(limits, "BODY_BUDGET_BYTES", 400_000)
    greedy, other = [await bench.organisation(name) for name in ("Greedy", "Other")]
    keys = [await bench.key(greedy) for _ in range(2)]
    await bench.node(other)
    for key in keys:
        await post(CHAT, b"a" * 50_000, f"Bearer {key}")
    await script.until(lambda: bench.hub.limits.body_bytes == 100_000, "both bodies are held")
    assert await status(await post(CHAT, b"a", f"Bearer {keys[1]}")) == 429
    headers = {"authorization": f"Bearer {await bench.key(other)}"}
    assert (await http.post(CHAT, json=ASK, headers=headers)).status_code == 200
