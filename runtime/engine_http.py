"""A lean HTTP/1.1 client towards an engine: bytes out as they came in, nothing else.

Owns connections, keep-alive and HTTP's framing. Must not know models, leases, the tunnel or what bodies mean.
A general client spends more time on a token than the engine's socket does; this one hands the body's bytes on
without a copy and says, with the piece itself, whether it was the last.
"""

import asyncio
import os
import socket
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import httptools

from runtime.errors import EngineConnectionLost, EngineUnreachable

CONNECT_TIMEOUT_S = 5.0
MAX_HEADER_BYTES = 32 * 1024
MAX_HEADERS = 100
READ_AHEAD_BYTES = 64 * 1024
"""Body bytes kept before the engine's socket is left unread: a slow reader stalls its own request only."""
MAX_IDLE_CONNECTIONS = 32
IDLE_LIMIT_S = 30.0
"""A connection idle for longer is not used again: engines close theirs without a word."""

Headers = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class StreamedBody:
    """A request body that is passed on as it comes; `length` in bytes, None sends it chunked."""

    pieces: AsyncIterator[bytes]
    length: int | None


Body = bytes | StreamedBody


class _Parser(Protocol):
    """What is used of httptools' parser, which ships no types."""

    def feed_data(self, data: bytes) -> None: ...
    def get_status_code(self) -> int: ...
    def should_keep_alive(self) -> bool: ...


def _new_parser(target: object) -> _Parser:
    parser: _Parser = httptools.HttpResponseParser(target)
    return parser


class _Connection(asyncio.Protocol):
    """One TCP connection carrying one exchange at a time. The `on_…` methods are the parser's callbacks."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.closed = False
        self.idle_since = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._write_paused = False
        self._read_paused = False
        self._loop = asyncio.get_running_loop()
        self._take: Callable[[bytes], bool] | None = None
        self.begin()

    def begin(self) -> None:
        """Forget the exchange before and be ready for the next answer."""
        self._parser = _new_parser(self)
        self._pieces: deque[bytes] = deque()
        self._buffered = 0
        self._header_bytes = 0  # received before the head was whole: a head that never ends
        self._named_bytes = 0  # of the headers that were: a head that came at once
        self._framed = False
        self.answered = False  # a byte of the answer has come: the request may not be sent again
        self.headers: list[tuple[str, str]] = []
        self._take = None
        self.head_done = False
        self.complete = False
        self._keep_alive = False
        self.request_cut = False  # the engine answered before it had the whole request
        self.error: str | None = None

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own class, of another family

    def data_received(self, data: bytes) -> None:
        if self.complete:  # bytes nobody asked for: the connection is not to be trusted any more
            self._fail("the engine sent bytes after its answer")
            return
        self.answered = True
        if not self.head_done:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("the engine's answer is not valid HTTP")
        if not self.head_done and self._header_bytes > MAX_HEADER_BYTES:
            self._fail("the engine's headers are too large")
        if not self._handed_on():
            self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        # A body with neither length nor chunks ends with the connection.
        if self.head_done and not self.complete and not self._framed and exc is None:
            self.complete = True
        elif not self.complete:
            self.error = self.error or "the engine closed the connection"
        self._wake()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # httptools' side

    def on_header(self, name: bytes, value: bytes) -> None:
        text = name.decode("latin-1").lower()
        self.headers.append((text, value.decode("latin-1")))
        self._named_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._named_bytes > MAX_HEADER_BYTES:
            raise ValueError("too many headers")
        if text in ("content-length", "transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if self.status < 200:  # 100 Continue and its like announce the real answer
            self.headers = []
            self._framed = False
            return
        self.head_done = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)
        self._buffered += len(body)
        if self._buffered >= READ_AHEAD_BYTES and not self._read_paused and self.transport is not None:
            self._read_paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.head_done:
            self.complete = True
            # Only within this callback does the parser still know of this message.
            self._keep_alive = self._parser.should_keep_alive()

    # the client's side

    @property
    def status(self) -> int:
        return self._parser.get_status_code()

    @property
    def reusable(self) -> bool:
        sound = self.complete and not self.request_cut and not self.closed and self.error is None
        return sound and self._keep_alive

    async def write(self, data: bytes) -> None:
        if self.closed or self.transport is None:
            return  # what matters is what the engine said before it closed; the reader finds out
        self.transport.write(data)
        if self._write_paused:
            self._writable = self._loop.create_future()
            await self._writable

    def hand_on(self, take: Callable[[bytes], bool]) -> None:
        self._take = take

    def _handed_on(self) -> bool:
        """Whether what is here went on without waking its reader, who has to wait for it; never the last."""
        take, waiter = self._take, self._waiter
        if take is None or waiter is None or waiter.done() or self.complete or self.error is not None:
            return False
        if not self._pieces or not take(b"".join(self._pieces)):
            return False
        self._emptied()
        return True

    async def wait_head(self) -> None:
        while not self.head_done:
            if self.error is not None:
                if self.answered:
                    raise EngineConnectionLost(self.error)
                raise EngineUnreachable(self.error, asked=True)
            await self._wait()

    async def next_piece(self) -> bytes:
        """Everything that has come since the last call; empty only at the end.

        Raises:
            EngineConnectionLost: the body ended before its end.
        """
        while not self._pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise EngineConnectionLost(self.error)
            await self._wait()
        data = b"".join(self._pieces)
        self._emptied()
        return data

    def _emptied(self) -> None:
        self._pieces.clear()
        self._buffered = 0
        if self._read_paused and self.transport is not None:
            self._read_paused = False
            self.transport.resume_reading()

    def abort(self) -> None:
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, reason: str) -> None:
        self.error = self.error or reason
        self.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class EngineResponse:
    """One answer. Read it to its end or `close` it: closing early is what stops the engine's work on it."""

    def __init__(self, connection: _Connection, client: "EngineClient") -> None:
        self._connection = connection
        self._client = client
        self._released = False
        self.status = connection.status
        self.headers = tuple(connection.headers)

    @property
    def complete(self) -> bool:
        """The piece that `read` returned last was the last of the body."""
        connection = self._connection
        return connection.complete and not connection._pieces  # noqa: SLF001 - both halves of one thing

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    async def read(self) -> bytes:
        """The next piece of the body, as it came; empty at the end.

        Raises:
            EngineConnectionLost: the connection died within the body.
        """
        return await self._connection.next_piece()

    def hand_on(self, take: Callable[[bytes], bool]) -> None:
        """Offer what comes while `read` waits to `take` first, in the turn of the loop in which it comes.

        What it does not take, answering False, `read` gives. The last piece always comes from `read`.
        """
        self._connection.hand_on(take)

    async def read_all(self, limit: int) -> bytes:
        """The whole body, or its first `limit` bytes."""
        body = bytearray()
        while len(body) < limit:
            piece = await self.read()
            if not piece:
                break
            body += piece
        return bytes(body[:limit])

    def close(self) -> None:
        """Give the connection back if the answer has wholly come, else abort it. Safe to repeat."""
        if self._released:
            return
        self._released = True
        self._client.release(self._connection)


class EngineClient:
    """Requests to one engine over a pool of kept-alive connections. Belongs to one event loop.

    Args:
        host: its name or address.
        port: its port.
        tls: how its certificate is judged; None speaks in the clear.
    """

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._closed = False

    async def request(
        self, method: str, path: str, headers: Headers = (), body: Body = b""
    ) -> EngineResponse:
        """Send one request and wait for the head of its answer.

        A kept-alive connection that dies before a byte of the answer came was stale: a body held in memory is
        then sent once more on a new connection. A streamed body goes on a new connection from the start.

        Raises:
            EngineUnreachable: nothing of an answer came.
            EngineConnectionLost: the answer broke off within its head, or is not HTTP.
        """
        pooled = self._take() if isinstance(body, bytes) else None
        if pooled is not None:
            try:
                return await self._exchange(pooled, method, path, headers, body)
            except EngineUnreachable:
                pass  # stale: the engine closed it while it was idle
        return await self._exchange(await self._connect(), method, path, headers, body)

    @property
    def unused(self) -> bool:
        """No connection is open."""
        return not self._busy and all(connection.closed for connection in self._idle)

    def close(self) -> None:
        """Abort every connection."""
        self._closed = True
        for connection in (*self._idle, *self._busy):
            connection.abort()
        self._idle.clear()
        self._busy.clear()

    def release(self, connection: _Connection) -> None:
        """Take a connection back, for `EngineResponse`."""
        self._busy.discard(connection)
        if connection.reusable and not self._closed and len(self._idle) < MAX_IDLE_CONNECTIONS:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        else:
            connection.abort()

    def _take(self) -> _Connection | None:
        """The connection used last that is still open; older ones are likelier stale."""
        oldest = asyncio.get_running_loop().time() - IDLE_LIMIT_S
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and connection.idle_since >= oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                _, connection = await loop.create_connection(
                    _Connection, self._host, self._port, ssl=self._tls
                )
        except OSError as error:
            raise EngineUnreachable(f"the engine does not answer: {_why(error)}") from None
        return connection

    async def _exchange(
        self, connection: _Connection, method: str, path: str, headers: Headers, body: Body
    ) -> EngineResponse:
        if connection.complete:
            connection.begin()
        self._busy.add(connection)
        try:
            await self._send(connection, _head(method, path, self._authority, headers, body), body)
            await connection.wait_head()
        except BaseException:
            self._busy.discard(connection)
            connection.abort()
            raise
        return EngineResponse(connection, self)

    async def _send(self, connection: _Connection, head: bytes, body: Body) -> None:
        if isinstance(body, bytes):
            await connection.write(head + body)
            return
        await connection.write(head)
        async for piece in body.pieces:
            if connection.answered or connection.closed:
                connection.request_cut = True
                return  # it answered before it had heard everything: an error, and worth passing on
            await connection.write(
                piece if body.length is not None else b"%x\r\n%b\r\n" % (len(piece), piece)
            )
        if body.length is None:
            await connection.write(b"0\r\n\r\n")


def _why(error: OSError) -> str:
    """In words, without the address: whoever asked for an answer need not know it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS as it should"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    if isinstance(error, TimeoutError):
        return "it takes no connection in time"
    return os.strerror(error.errno) if error.errno else "it cannot be connected to"


def _head(method: str, path: str, authority: str, headers: Headers, body: Body) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", f"host: {authority}"]
    for name, value in headers:
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError("a header holds a line break")
        lines.append(f"{name}: {value}")
    length = len(body) if isinstance(body, bytes) else body.length
    if length is None:
        lines.append("transfer-encoding: chunked")
    elif length or method not in ("GET", "HEAD"):
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def json_headers(extra: Headers = ()) -> list[tuple[str, str]]:
    """Headers of a JSON request, with what the engine's endpoint asks for."""
    return [("content-type", "application/json"), *extra]
