"""A lean streaming client: sends one request over HTTP/1.1 and notes when its tokens arrived.

Owns connections (pooled, plain or TLS) and the translation of their failures. It is a bare asyncio protocol
rather than a general client: no task wakes and no copy is made per chunk, and the time of arrival is taken
where the bytes come out of the socket, so that the meter costs little of what it measures. Must not know
loads or statistics.
"""

import asyncio
import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

import msgspec

from benchmarks.errors import ExchangeFailed, SettingInvalid
from benchmarks.generator.exchange import Reply
from benchmarks.generator.target import Api, Origin, Target
from benchmarks.generator.workloads import Message, Request

_DETAIL_CHARACTERS: Final = 320

Clock = Callable[[], float]
"""Seconds since any fixed moment, never going back."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen of one request. Times are in seconds of the client's clock.

    Attributes:
        started_at: when latency begins: the sending, or in an open loop the time it was due.
        sent_at: when the client really turned to it; later than ``started_at`` if it was behind.
        ended_at: when it was over, whichever way.
        first_token_at: none for replies that are not streamed, and for failed requests without a token.
        gaps: between successive token chunks.
        delays: how long each token chunk was under way, where the server says when it left.
        output_tokens: from the server's usage, else the number of token chunks.
        counted: whether the server gave the count.
        error: kind of the failure; none for a complete answer.
        number: of the request within its workload; negative where there is none.
        asked_tokens: how many output tokens were asked for.
        content_bytes: length of the answer's content in UTF-8.
        empty_chunks: streamed chunks without anything in them.
    """

    started_at: float
    sent_at: float
    ended_at: float
    first_token_at: float | None = None
    last_token_at: float | None = None
    gaps: tuple[float, ...] = ()
    prompt_tokens: int | None = None
    output_tokens: int = 0
    counted: bool = False
    error: str | None = None
    detail: str = ""
    delays: tuple[float, ...] = ()
    number: int = -1
    asked_tokens: int = 0
    content_bytes: int = 0
    empty_chunks: int = 0

    @property
    def chunks(self) -> int:
        """How many token chunks came."""
        return 0 if self.first_token_at is None else len(self.gaps) + 1


class Client:
    """Sends requests to one target. An async context manager; leaving it closes the connections."""

    def __init__(self, target: Target, *, clock: Clock = time.perf_counter) -> None:
        self._target = target
        self._clock = clock
        self._origin = Origin.of(target)
        self._head = self._origin.request_head(target)
        self._tls = _tls_context(target) if self._origin.secure else None
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = {connection.closed for connection in self._open}
        for connection in list(self._open):
            connection.abort()
        if closing:
            await asyncio.wait(closing)

    async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
        """Send the request and read its answer to the end; a failure becomes a sample with its kind.

        Args:
            request: what to ask.
            due_at: when it should have been sent. Latency counts from there, so that a generator or an
                endpoint that falls behind cannot hide the wait (coordinated omission).
        """
        sent_at = self._clock()
        started_at = sent_at if due_at is None else due_at
        reply: Reply | None = None
        failure: ExchangeFailed | None = None
        try:
            async with asyncio.timeout(self._target.timeout_s):
                reply = await self._exchange(self._encode(request), request.said)
            reply.verdict()
        except ExchangeFailed as error:
            failure = error
        except TimeoutError:
            failure = ExchangeFailed("timeout", f"no complete answer within {self._target.timeout_s:g} s")
        return self._sample(request, started_at, sent_at, reply, failure)

    async def _exchange(self, message: bytes, said: list[str] | None) -> Reply:
        while True:
            connection, pooled = await self._connection()
            reply = await connection.exchange(message, Reply(streaming=self._target.stream, said=said))
            if reply.reusable and not connection.closed.done():
                self._idle.append(connection)
            else:
                connection.abort()
            # The server may have closed the pooled connection while our request was on its way: it was
            # never answered, so it is sent again. On a fresh connection the same thing is a failure.
            if reply.started or not pooled:
                return reply

    async def _connection(self) -> tuple["_Connection", bool]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed.done():
                return connection, True
        loop = asyncio.get_running_loop()
        origin = self._origin
        try:
            _, connection = await loop.create_connection(
                lambda: _Connection(self._clock, self._open.discard), origin.host, origin.port, ssl=self._tls
            )
        except OSError as error:
            raise _connect_failure(error, origin) from error
        self._open.add(connection)
        return connection, False

    def _encode(self, request: Request) -> bytes:
        target = self._target
        body: dict[str, object] = {
            "model": target.model,
            "max_tokens": request.output_tokens,
            "temperature": 0,
            "stream": target.stream,
        }
        if target.api is Api.CHAT:
            body["messages"] = [*request.history, Message("user", request.prompt)]
        else:
            body["prompt"] = _as_one_text(request)
        if target.stream:
            body["stream_options"] = {"include_usage": True}
        if target.ignore_eos:
            body["ignore_eos"] = True
        payload = msgspec.json.encode(body)
        return b"%s%d\r\n\r\n%s" % (self._head, len(payload), payload)

    def _sample(
        self,
        request: Request,
        started_at: float,
        sent_at: float,
        reply: Reply | None,
        failure: ExchangeFailed | None,
    ) -> Sample:
        if failure is not None or reply is None:
            kind, detail = (failure.kind, _detail(failure, request)) if failure else ("unknown", "")
            return Sample(
                started_at,
                sent_at,
                self._clock(),
                error=self._safe(kind),
                detail=self._safe(detail),
                number=request.index,
                asked_tokens=request.output_tokens,
            )
        usage = reply.usage
        counted = usage is not None and usage.completion_tokens is not None
        return Sample(
            started_at=started_at,
            sent_at=sent_at,
            ended_at=self._clock(),
            first_token_at=reply.first_token_at,
            last_token_at=reply.last_token_at,
            gaps=tuple(reply.gaps),
            prompt_tokens=usage.prompt_tokens if usage else None,
            output_tokens=(usage.completion_tokens or 0) if usage and counted else reply.token_chunks,
            counted=counted,
            delays=tuple(reply.delays),
            number=request.index,
            asked_tokens=request.output_tokens,
            content_bytes=reply.content_bytes,
            empty_chunks=reply.empty_chunks,
        )

    def _safe(self, text: str) -> str:
        # Some servers repeat the key they refuse. It is cut afterwards: half a key would not be found.
        key = self._target.api_key
        return (text.replace(key, "[api key]") if key else text)[:_DETAIL_CHARACTERS]


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, clock: Clock, on_closed: Callable[["_Connection"], None]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._on_closed = on_closed
        self._transport: asyncio.Transport | None = None
        self._reply: Reply | None = None
        self._answered: asyncio.Future[None] | None = None

    async def exchange(self, message: bytes, reply: Reply) -> Reply:
        """Send the message and fill the reply until it is complete or the connection is gone."""
        assert self._transport is not None
        self._reply = reply
        self._answered = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(message)
            await self._answered
        finally:
            if not reply.complete:
                self.abort()
            self._reply = self._answered = None
        return reply

    def abort(self) -> None:
        """Drop the connection at once; to the server it is a client that went away."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not to be checked by isinstance: uvloop's transports are asyncio's only by their methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        reply, now = self._reply, self._clock()
        if reply is None or reply.complete:
            self.abort()
            return
        try:
            complete = reply.feed(data, now)
        except ExchangeFailed as error:
            self._finish(error)
            return
        if complete:
            self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self.closed.set_result(None)
        self._on_closed(self)
        if self._reply is not None and not self._reply.complete:
            self._reply.feed_eof(self._clock())
            self._finish(None)

    def _finish(self, error: ExchangeFailed | None) -> None:
        answered = self._answered
        if answered is None or answered.done():
            return
        if error is None:
            answered.set_result(None)
        else:
            answered.set_exception(error)


def _detail(failure: ExchangeFailed, request: Request) -> str:
    if failure.quotes and (request.private or request.history):
        return "the server's words are left out, since they may repeat what was said"
    return failure.detail


def _as_one_text(request: Request) -> str:
    # Each turn's text begins with all of the turn before and its answer, as it came: caches find it again.
    texts = [one.content if one.role == "assistant" else f" {one.content}" for one in request.history]
    return "".join([*texts, f" {request.prompt}"]).removeprefix(" ")


def _tls_context(target: Target) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=target.ca_file)
    except OSError as error:
        raise SettingInvalid(f"cannot read certificates from {target.ca_file}: {error.strerror}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _connect_failure(error: OSError, origin: Origin) -> ExchangeFailed:
    where = f"{origin.host}:{origin.port}"
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
        return ExchangeFailed("tls", f"no trusted TLS connection to {where}: {reason}")
    if isinstance(error, socket.gaierror):
        return ExchangeFailed("dns", f"no address known for {origin.host}")
    if isinstance(error, ConnectionRefusedError):
        return ExchangeFailed("connection_refused", f"connection refused by {where}: is the server running?")
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return ExchangeFailed(
            "no_files", "this machine, not the endpoint, allows no more open files (ulimit -n)"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return ExchangeFailed(
            "no_ports", f"this machine, not the endpoint, has no port left to reach {where}"
        )
    return ExchangeFailed("connect", f"cannot connect to {where}: {error.strerror or error}")
