"""The daemon's HTTP server on a real socket: it sleeps until it is stopped, and is stopped at once."""

import asyncio

import httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from runtime import http_server
from runtime.http_server import AppServer
from runtime.listening import listen_tcp


async def hello(scope: Scope, receive: Receive, send: Send) -> None:
    client = scope["client"][0]
    await PlainTextResponse(f"{scope['scheme']} {client}")(scope, receive, send)


async def test_a_stop_wakes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_DATE_S", 3600.0)  # whoever waits for the next tick hangs
    listener = listen_tcp("127.0.0.1", 0)
    server = AppServer(hello, listener)
    serving = asyncio.create_task(server.serve())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
        answer = await client.get("/", headers={"x-forwarded-proto": "https", "x-forwarded-for": "10.0.0.1"})
    assert answer.text == "http 127.0.0.1"  # what a client says of itself is not believed
    assert answer.headers["date"].endswith("GMT")
    server.stop()
    await serving


async def test_a_stop_before_it_serves_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_DATE_S", 3600.0)
    server = AppServer(hello, listen_tcp("127.0.0.1", 0))
    server.stop()
    await server.serve()


async def test_the_date_is_kept_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_DATE_S", 0.001)
    server = AppServer(hello, listen_tcp("127.0.0.1", 0))
    ticks = asyncio.Semaphore(0)
    on_tick = server._server.on_tick

    async def counted(counter: int) -> bool:
        ticks.release()
        return await on_tick(counter)

    monkeypatch.setattr(server._server, "on_tick", counted)
    serving = asyncio.create_task(server.serve())
    for _ in range(3):
        await ticks.acquire()
    server.stop()
    await serving
