"""Answers as engines frame them: with a length, in chunks, until the end, broken off, and no HTTP at all."""

import asyncio
from typing import Any

import pytest

from runtime.engine_http import MAX_HEADER_BYTES, EngineClient
from runtime.errors import EngineConnectionLost
from tests.integration.runtime.engine_http.reading import pieces_of


async def test_a_body_with_a_length_is_known_to_end_with_its_last_piece(
    engine: Any, client: EngineClient
) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"hello")

    engine.script = script
    response = await client.request("POST", "/x?y=1", [("content-type", "text/plain")], b"ask")
    assert (response.status, response.header("content-type")) == (200, "application/json")
    assert await pieces_of(response) == [(b"hello", True)]
    response.close()
    asked = engine.requests[0]
    assert (asked.method, asked.path, asked.body) == ("POST", "/x?y=1", b"ask")
    assert asked.headers["host"] == f"127.0.0.1:{engine.port}"
    assert asked.headers["content-length"] == "3"


async def test_chunks_come_as_they_were_sent(engine: Any, client: EngineClient) -> None:
    turn = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for text in (b"one", b"two"):
            await connection.chunk(text)
            await turn.wait()
            turn.clear()
        await connection.raw(b"5\r\nthree\r\n0\r\n\r\n")

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert (await response.read(), response.complete) == (b"one", False)
    turn.set()
    assert (await response.read(), response.complete) == (b"two", False)
    turn.set()
    assert (await response.read(), response.complete) == (b"three", True)
    assert await response.read() == b""


async def test_a_body_without_any_framing_ends_with_the_connection(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.head(200, connection="close")
        await connection.raw(b"until the end")
        connection.writer.close()

    engine.script = script
    response = await client.request("GET", "/")
    assert b"".join([piece for piece, _ in await pieces_of(response)]) == b"until the end"
    assert response.complete


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_an_answer_in_single_bytes_is_the_same_answer(
    engine: Any, client: EngineClient, cut: int
) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: a/b\r\ntransfer-encoding: chunked\r\n\r\n"
    whole = head + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"

    async def script(request: Any, connection: Any) -> None:
        for start in range(0, len(whole), cut):
            await connection.raw(whole[start : start + cut])
            await asyncio.sleep(0)

    engine.script = script
    response = await client.request("GET", "/")
    assert response.header("content-type") == "a/b"
    assert b"".join([piece for piece, _ in await pieces_of(response)]) == b"abcde"


async def test_a_body_that_breaks_off_is_an_error(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"half")
        connection.writer.close()

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    assert await response.read() == b"half"
    with pytest.raises(EngineConnectionLost):
        await response.read()
    response.close()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEADER_BYTES + 100) + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_not_http_is_refused(engine: Any, client: EngineClient, nonsense: bytes) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.raw(nonsense)
        await connection.gone()

    engine.script = script
    with pytest.raises(EngineConnectionLost):
        await (await client.request("GET", "/")).read()
