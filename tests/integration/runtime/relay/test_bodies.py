"""Bodies in parts, too long to hold or to take; readers that stop; many streams beside each other."""

import asyncio
import json
from typing import Any

import pytest

from runtime.forward import HELD_BODY_BYTES
from tests.integration.runtime.relay.answering import DONE, answers


async def test_a_body_in_parts_waits_for_its_end(engine: Any, bridge: Any, read: Any) -> None:
    engine.script = answers([DONE])
    stream = await bridge.open(body=None)
    for part in (b'{"a":', b"1", b"}"):
        await stream.send(part)
    await stream.send(b"", fin=True)
    await read(stream)
    assert engine.requests[0].body == b'{"a":1}'


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_too_long_to_hold_is_passed_on(
    engine: Any, bridge: Any, read: Any, announced: bool
) -> None:
    body = b"x" * (HELD_BODY_BYTES * 3)

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, str(len(request.body)).encode())

    engine.script = script
    stream = await bridge.open(body=None, content_length=len(body) if announced else None)
    await stream.send(body, fin=True)
    assert b"".join(await read(stream)) == str(len(body)).encode()


async def test_a_body_announced_beyond_the_limit_is_refused(engine: Any, bridge: Any, read: Any) -> None:
    stream = await bridge.open(body=None, content_length=33 * 1024 * 1024)
    assert (await stream.head()).status == 413
    assert json.loads(b"".join(await read(stream)))["error"]["code"] == "request_too_large"
    assert engine.requests == []


async def test_a_reader_that_stops_stalls_only_its_own_request(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    """Without credit the relay leaves the engine's socket unread, and other streams go on."""
    sent: dict[str, int] = {"slow": 0}
    stalled = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        if request.body != b"slow":
            await answers([sse("quick"), DONE])(request, connection)
            return
        connection.writer.transport.set_write_buffer_limits(high=0)
        await connection.stream_head()
        piece = b"data: " + b"x" * 8000 + b"\n\n"
        for _ in range(4000):
            try:
                async with asyncio.timeout(0.5):
                    await connection.chunk(piece)
            except TimeoutError:
                stalled.set()
                await connection.writer.drain()
            sent["slow"] += 8008
        await connection.chunk(DONE)
        await connection.end()

    engine.script = script
    slow = await bridge.open(b"slow")
    async with asyncio.timeout(20):
        await stalled.wait()
    assert sent["slow"] < 16_000_000
    for _ in range(5):
        quick = await bridge.open(b"quick")
        async with asyncio.timeout(2):
            assert b"".join(await read(quick)).endswith(DONE)
    total = sum([len(piece) for piece in await read(slow)])
    assert total == 4000 * 8008 + len(DONE)


async def test_many_streams_are_answered_beside_each_other(
    engine: Any, bridge: Any, read: Any, sse: Any
) -> None:
    everybody = asyncio.Barrier(32)

    async def script(request: Any, connection: Any) -> None:
        await everybody.wait()
        await answers([sse(request.body.decode()), DONE])(request, connection)

    engine.script = script
    streams = [await bridge.open(f"n{number}".encode()) for number in range(32)]
    bodies = await asyncio.gather(*(read(stream) for stream in streams))
    assert [b"".join(body) for body in bodies] == [sse(f"n{number}") + DONE for number in range(32)]
