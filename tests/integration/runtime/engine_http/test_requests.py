"""What is sent to an engine: long bodies as they come, refused or not, and headers that hold no others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from runtime.engine_http import EngineClient, StreamedBody


@pytest.mark.parametrize("length", [200_000, None])
async def test_a_long_body_is_passed_on_as_it_comes(
    engine: Any, client: EngineClient, length: int | None
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, str(len(request.body)).encode())

    async def body() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 10_000

    engine.script = script
    response = await client.request("POST", "/", (), StreamedBody(body(), length))
    assert await response.read() == b"200000"


async def test_an_early_refusal_of_a_long_body_is_heard(engine: Any, client: EngineClient) -> None:
    refused = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 1000
        await refused.wait()
        for _ in range(100):
            await asyncio.sleep(0)
            yield b"x" * 100_000

    async def raw_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 No\r\ncontent-length: 3\r\n\r\nbig")
        await writer.drain()
        refused.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(raw_server, "127.0.0.1", 0) as server:
        early = EngineClient("127.0.0.1", server.sockets[0].getsockname()[1])
        response = await early.request("POST", "/", (), StreamedBody(body(), 10_001_000))
        assert (response.status, await response.read()) == (413, b"big")
        response.close()
        assert early.unused  # half a request was sent on it: it may carry no other
        early.close()


async def test_a_line_break_in_a_header_is_refused(client: EngineClient) -> None:
    with pytest.raises(ValueError, match="line break"):
        await client.request("POST", "/", [("accept", "x\r\nevil: 1")], b"")
