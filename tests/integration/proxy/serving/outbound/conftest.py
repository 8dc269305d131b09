"""A site whose only way out is an HTTP proxy: it asks for a password, and alone knows where the Hub is."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

USER, PASSWORD = "rack-7", "p@ss:w/rd"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
WHO_ARE_YOU = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'proxy-authenticate: Basic realm="out"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n'
)
UNKNOWN = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


@dataclass
class Gateway:
    """An HTTP proxy with the method CONNECT and no other."""

    name: str
    port: int = 0
    asked: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{USER}:p%40ss%3Aw%2Frd@{self.address}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            request, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            self.asked.append(request)
            method, target, _ = request.split(" ")
            host, _, port = target.rpartition(":")
            if headers.get("proxy-authorization") != self._expected():
                writer.write(WHO_ARE_YOU)
            elif (method, host) != ("CONNECT", self.name):
                writer.write(UNKNOWN)
            else:
                self.opened.append(target)
                await self._carry(reader, writer, int(port))

    @staticmethod
    def _expected() -> str:
        return f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}".lower()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Pass bytes both ways until one side ends."""
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.closing(inner_writer):
            writer.write(ESTABLISHED)
            ways = [
                asyncio.create_task(pass_on(reader, inner_writer)),
                asyncio.create_task(pass_on(inner_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


@pytest.fixture
def name() -> str:
    """What the Hub is called outside; a test may choose another."""
    return "hub.example.org"


@pytest.fixture
def front(make_front: Callable[..., Any], name: str) -> Any:
    return make_front(name=name)


@pytest.fixture
async def gateway(front: Any) -> AsyncIterator[Gateway]:
    """Given up before the nodes: their connections end with it."""
    found = Gateway(front.name)
    connections: set[asyncio.Task[None]] = set()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(task := asyncio.current_task())
        try:
            await found.serve(reader, writer)
        except asyncio.CancelledError:
            pass  # at the end of the test
        finally:
            connections.discard(task)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    yield found
    server.close()
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections)
    await server.wait_closed()
