"""An engine that does as a test says, on a real socket."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass
class EngineRequest:
    """What the engine got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """The engine's end of one connection, for scripts to write on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self, status: int = 200, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
        await self.raw(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())

    async def stream_head(self) -> None:
        await self.head(200, content_type="text/event-stream", transfer_encoding="chunked")

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        await self.head(status, content_type=content_type, content_length=str(len(body)))
        await self.raw(body)

    def reset(self) -> None:
        """Hang up with a RST, as a killed process does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client hangs up."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[EngineRequest, Connection], Awaitable[None]]


class ScriptedEngine:
    """An engine that does what the test says, one script call a request."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.requests: list[EngineRequest] = []
        self.connections = 0
        self.close_after_answer = False
        self.failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.failures, self.failures

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(Connection(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled only by `stop`; asyncio's own callback would report it as an error
        except Exception as failure:  # noqa: BLE001 - shown when the test ends
            self.failures.append(failure)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, connection: Connection) -> None:
        while True:
            request = await self._read(connection.reader)
            self.requests.append(request)
            assert self.script is not None
            await self.script(request, connection)
            if self.close_after_answer:
                return

    async def _read(self, reader: asyncio.StreamReader) -> EngineRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await reader.readline()).strip(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        return EngineRequest(method, path, headers, body)
