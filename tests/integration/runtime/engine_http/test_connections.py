"""Connections to an engine: kept, replaced once where they had died, and hung up on by whoever leaves."""

import asyncio
from typing import Any

import pytest

from runtime.engine_http import EngineClient
from runtime.errors import EngineConnectionLost, EngineUnreachable
from tests.integration.runtime.engine_http.reading import pieces_of


async def test_a_connection_is_kept_and_used_again(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, b"x")

    engine.script = script
    for _ in range(3):
        response = await client.request("POST", "/", (), b"{}")
        await pieces_of(response)
        response.close()
    assert engine.connections == 1


async def test_a_kept_connection_that_died_is_replaced_once(engine: Any, client: EngineClient) -> None:
    """llama.cpp's server hangs up after a streamed answer without having said so."""

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"x")
        await connection.end()

    engine.script = script
    engine.close_after_answer = True
    for _ in range(5):
        response = await client.request("POST", "/", (), b"{}")
        assert (await response.read()) == b"x"
        while await response.read():
            pass
        response.close()
    assert len(engine.requests) == 5


async def test_a_connection_that_dies_under_the_second_request_is_retried(
    engine: Any, client: EngineClient
) -> None:
    async def script(request: Any, connection: Any) -> None:
        if request.path == "/second" and engine.connections == 1:
            connection.reset()  # it had closed already, and our request crossed that on the wire
            return
        await connection.answer(200, request.body)

    engine.script = script
    first = await client.request("POST", "/first", (), b"1")
    await pieces_of(first)
    first.close()
    second = await client.request("POST", "/second", (), b"2")
    assert await pieces_of(second) == [(b"2", True)]
    assert [request.path for request in engine.requests] == ["/first", "/second", "/second"]


async def test_a_new_connection_that_dies_is_not_retried(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        connection.reset()

    engine.script = script
    with pytest.raises(EngineUnreachable):
        await client.request("POST", "/", (), b"{}")
    assert len(engine.requests) == 1


async def test_an_answer_that_began_is_never_asked_for_again(engine: Any, client: EngineClient) -> None:
    async def script(request: Any, connection: Any) -> None:
        if request.path == "/first":
            await connection.answer(200, b"x")
            return
        await connection.raw(b"HTTP/1.1 200")
        connection.reset()

    engine.script = script
    first = await client.request("POST", "/first", (), b"")
    await pieces_of(first)
    first.close()
    with pytest.raises((EngineConnectionLost, EngineUnreachable)) as caught:
        await client.request("POST", "/", (), b"{}")
    # A RST may overtake the bytes before it: then nothing of the answer was seen, and one retry is due.
    retried = isinstance(caught.value, EngineUnreachable)
    assert len(engine.requests) == (3 if retried else 2)


async def test_nobody_there_is_said_so(unused_port: int) -> None:
    with pytest.raises(EngineUnreachable, match="does not answer"):
        await EngineClient("127.0.0.1", unused_port).request("GET", "/")


async def test_closing_early_hangs_up(engine: Any, client: EngineClient) -> None:
    hung_up = asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        await connection.chunk(b"x")
        await connection.gone()
        hung_up.set()

    engine.script = script
    response = await client.request("POST", "/", (), b"")
    await response.read()
    response.close()
    async with asyncio.timeout(5):
        await hung_up.wait()
    assert client.unused


async def test_cancelling_a_request_hangs_up(engine: Any, client: EngineClient) -> None:
    asked, hung_up = asyncio.Event(), asyncio.Event()

    async def script(request: Any, connection: Any) -> None:
        asked.set()
        await connection.gone()
        hung_up.set()

    engine.script = script
    request = asyncio.create_task(client.request("POST", "/", (), b""))
    await asked.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    async with asyncio.timeout(5):
        await hung_up.wait()
