"""One request from its model's lease to the last byte of the engine's answer, whoever asked.

Owns the order of things: body, lease, engine, head, pieces, end. The tunnel's relay and the local API both
drive it and differ only in the `Sink` they pass in. Must not know sessions, tickets or a web framework.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from runtime.adaptation import adapt
from runtime.adapted_answer import QuietAnswer
from runtime.api_paths import PROTOCOLS
from runtime.backends.base import Endpoint
from runtime.closing import closing_of
from runtime.engine_http import Body, EngineClient, EngineResponse, StreamedBody
from runtime.envelope import (
    JSON_CONTENT,
    MAX_ERROR_BYTES,
    ErrorAnswer,
    from_engine,
    no_such_endpoint,
    request_headers,
    response_headers,
)
from runtime.error_shapes import OPENAI, ErrorShape
from runtime.errors import BodyTooLarge, EngineConnectionLost, EngineUnreachable, RequestRefused
from runtime.progress import LoadProgress
from runtime.supervisor import Lease
from runtime.text_lists import LISTS, Parts, check, longest, split
from runtime.usage import BodyEnds, TokenUsage, find_usage
from tunnel.tracing import NO_SPAN, Span

MAX_BODY_BYTES = 32 * 1024 * 1024
HELD_BODY_BYTES = 1024 * 1024
"""A body up to this is held, so that it can be sent again on a new connection; a longer one is passed on."""
MAX_PART_BYTES = 64 * 1024 * 1024
"""Of an engine's answer to a part of a list: vectors of some texts."""
DEFAULT_WARMUP_S = 300.0

Headers = tuple[tuple[str, str], ...]
_Answer = EngineResponse | QuietAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One request. `pieces` gives its body; `budget_s` is what it may wait for load and slot together.

    `share` names the organisation that asks: slots go round between them. Empty is the machine's own.
    `shape`: how it is told of an error. Its steps are traced within `span`.
    """

    request_id: str
    model: str
    method: str
    path: str
    headers: Headers
    pieces: AsyncIterator[bytes]
    content_length: int | None
    budget_s: float = DEFAULT_WARMUP_S
    share: str = ""
    shape: ErrorShape = OPENAI
    span: Span = NO_SPAN


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended: `ok` or the error's code, the engine's counts, ms from lease to first byte, and why.

    `reason` is in the node's own words only: it goes into the log.
    """

    outcome: str
    usage: TokenUsage | None = None
    ttft_ms: float | None = None
    reason: str | None = None


class Sink(Protocol):
    """Where an answer goes. A call may wait for a slow reader; the engine's socket is then left unread."""

    async def head(self, status: int, headers: Headers) -> None:
        """The answer's status and headers, once."""

    async def send(self, data: bytes) -> None:
        """Bytes that are not the last."""

    def offer(self, data: bytes) -> bool:
        """The same, where it needs no waiting; False takes nothing, and leaves it to `send`."""

    async def finish(self, data: bytes, outcome: Outcome) -> None:
        """The last bytes, perhaps none, with how it ended."""


class Leases(Protocol):
    """What is used of `runtime.supervisor.Supervisor`."""

    def lease(
        self,
        model_id: str,
        *,
        budget_s: float,
        share: str = "",
        on_progress: Callable[[LoadProgress], None] | None = None,
    ) -> AbstractAsyncContextManager[Lease]:
        """Hold a slot of a ready replica for the length of the block."""

    async def examine(self, replica_id: str) -> None:
        """Say that the connection died: no later lease is of an engine that does not answer."""


class Forwarder:
    """Forwards jobs to leased engines. Belongs to one event loop; `close` ends its connections."""

    def __init__(self, leases: Leases, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._leases = leases
        self._clock = clock
        self._clients: dict[str, tuple[Endpoint, EngineClient]] = {}

    async def forward(self, job: Job, sink: Sink) -> Outcome:
        """Carry one request out; what the sink's `finish` got is returned too.

        Cancelling aborts the engine's connection, which is what frees the engine's slot. An engine that
        was dead before it was asked is asked once more, loaded anew; one that dies of a request is not.

        Raises:
            RuntimeFault: no engine could be leased, or it failed; see whether `head` was sent.
            BodyTooLarge: the body is over `MAX_BODY_BYTES`.
        """
        held = MAX_BODY_BYTES if job.path in LISTS else HELD_BODY_BYTES
        body = await _take_body(job.pieces, job.content_length, held)
        give_up = self._clock() + job.budget_s
        try:
            last, outcome = await self._attempt(job, body, sink, job.budget_s)
        except EngineUnreachable as error:
            if error.asked or not isinstance(body, bytes):
                raise
            last, outcome = await self._attempt(job, body, sink, max(0.0, give_up - self._clock()))
        # The slot is free by now: a slow reader of the last bytes keeps nobody waiting.
        await sink.finish(last, outcome)
        return outcome

    def close(self) -> None:
        """Abort every connection to every engine."""
        for _, client in self._clients.values():
            client.close()
        self._clients.clear()

    async def _attempt(self, job: Job, body: Body, sink: Sink, budget_s: float) -> tuple[bytes, Outcome]:
        async with AsyncExitStack() as held:
            with job.span.child("porten.lease", model=job.model):
                lease = await held.enter_async_context(
                    self._leases.lease(job.model, budget_s=budget_s, share=job.share)
                )
            _check_protocol(job.path, lease.endpoint)
            try:
                with job.span.child("porten.engine", replica_id=lease.replica_id):
                    return await self._ask(job, lease, body, sink)
            except (EngineUnreachable, EngineConnectionLost):
                await self._leases.examine(lease.replica_id)
                raise

    async def _ask(self, job: Job, lease: Lease, body: Body, sink: Sink) -> tuple[bytes, Outcome]:
        _check_length(body, job.path, lease.endpoint)
        if isinstance(body, bytes):
            check(body, job.path)
        if parts := _parts(body, job.path, lease.endpoint):
            return await self._ask_in_parts(job, lease, parts, sink)
        started = self._clock()
        body, unasked = await _adapted(body, job.path, lease.endpoint)
        response = await self._request(job, lease, body)
        try:
            if response.status >= 400:
                return await self._answer_error(job, response, sink)
            _check_readable(response)
            await sink.head(response.status, response_headers(response.headers, digest=lease.model_digest))
            answer = QuietAnswer(response) if unasked else response
            last, outcome = await self._pass_on(answer, sink, started, BodyEnds(closing_of(job.path)))
        finally:
            response.close()
        if outcome.usage is not None:
            lease.report(outcome.usage.completion_tokens, self._clock() - started)
        return last, outcome

    async def _ask_in_parts(self, job: Job, lease: Lease, parts: Parts, sink: Sink) -> tuple[bytes, Outcome]:
        """One part after the other: between two others get their turn, and who has left is noticed."""
        started, answers, ttft_ms = self._clock(), list[bytes](), 0.0
        for part in parts.bodies:
            response = await self._request(job, lease, part)
            try:
                if response.status >= 400:
                    return await self._answer_error(job, response, sink)
                answers.append(await response.read_all(MAX_PART_BYTES))
            finally:
                response.close()
            ttft_ms = ttft_ms or (self._clock() - started) * 1000
        whole = parts.merge(answers)
        await sink.head(200, response_headers((JSON_CONTENT,), digest=lease.model_digest))
        ends = BodyEnds()
        ends.add(whole)
        return whole, Outcome("ok", find_usage(ends, streamed=False), ttft_ms)

    async def _request(self, job: Job, lease: Lease, body: Body) -> EngineResponse:
        client = self._client(lease.replica_id, lease.endpoint)
        headers = [*request_headers(job.headers), *lease.endpoint.headers]
        return await client.request(job.method, lease.endpoint.base_path + job.path, headers, body)

    async def _pass_on(
        self, response: _Answer, sink: Sink, started: float, ends: BodyEnds
    ) -> tuple[bytes, Outcome]:
        """Pass pieces on as they come, but keep back the last: it travels with the outcome.

        Of an event stream only the closing event's last piece is kept back; of any other body, which nobody
        reads until it is whole, always the latest piece.
        """
        streamed = (response.header("content-type") or "").startswith("text/event-stream")
        held = b""
        ttft_ms: float | None = None
        while piece := await _next(response, ends):
            if ttft_ms is None:
                ttft_ms = (self._clock() - started) * 1000
                if streamed:
                    response.hand_on(_straight_to(sink, ends))
            ends.add(piece)
            if held:
                await sink.send(held)
            held = piece
            if response.complete:
                break
            if streamed and not ends.closes:
                await sink.send(piece)
                held = b""
        return held, Outcome(_judge(ends, streamed=streamed), find_usage(ends, streamed=streamed), ttft_ms)

    async def _answer_error(self, job: Job, response: EngineResponse, sink: Sink) -> tuple[bytes, Outcome]:
        answer = from_engine(response.status, await response.read_all(MAX_ERROR_BYTES))
        await sink.head(answer.status, answer.headers())
        return job.shape.body(answer, job.request_id), Outcome(answer.code)

    def _client(self, replica_id: str, endpoint: Endpoint) -> EngineClient:
        known = self._clients.get(replica_id)
        if known is not None and known[0] == endpoint:
            return known[1]
        self._forget_unused()
        client = EngineClient(endpoint.host, endpoint.port, endpoint.tls)
        self._clients[replica_id] = (endpoint, client)
        return client

    def _forget_unused(self) -> None:
        """Engines come and go; the clients of those that went hold no open connection any more."""
        for replica_id, (_, client) in list(self._clients.items()):
            if client.unused:
                client.close()
                del self._clients[replica_id]


async def finish_with(
    sink: Sink, answer: ErrorAnswer, request_id: str, shape: ErrorShape = OPENAI
) -> Outcome:
    """Answer with an error of the node's own, where no head was sent yet."""
    outcome = Outcome(answer.code)
    await sink.head(answer.status, answer.headers())
    await sink.finish(shape.body(answer, request_id), outcome)
    return outcome


def _straight_to(sink: Sink, ends: BodyEnds) -> Callable[[bytes], bool]:
    """The short way of a piece: from the engine's socket to the sink, with no task woken for it."""

    def take(piece: bytes) -> bool:
        if ends.closes or ends.would_close(piece) or not sink.offer(piece):
            return False
        ends.add(piece)
        return True

    return take


async def _next(response: _Answer, ends: BodyEnds) -> bytes:
    """The next piece; an engine that hangs up right after the closing event has said all there was."""
    try:
        return await response.read()
    except EngineConnectionLost:
        if ends.is_whole:
            return b""
        raise


_FAILURES = (b'data: {"error"', b"error:", b"event: error", b"event: response.failed")


def _judge(ends: BodyEnds, *, streamed: bool) -> str:
    """`ok`, or `engine_error` where a stream ended with the engine's own word that it failed."""
    if not streamed:
        return "ok"
    last_event = ends.tail.rstrip().rpartition(b"\n\n")[2]
    return "engine_error" if last_event.startswith(_FAILURES) else "ok"


def _check_protocol(path: str, endpoint: Endpoint) -> None:
    """Ask no engine what it does not speak: its own answer would be that there is no such page.

    Raises:
        RequestRefused: it lacks the endpoint.
    """
    if (word := PROTOCOLS.get(path)) is not None and word not in endpoint.protocols:
        raise RequestRefused("unsupported_parameter", no_such_endpoint(path))


def _check_length(body: Body, path: str, endpoint: Endpoint) -> None:
    """Refuse what cannot fit: an engine would cut it into tokens first, in many times its size of memory.

    Raises:
        RequestRefused: a text is longer than any that the context holds.
    """
    if endpoint.most_text_bytes is None:
        return
    if isinstance(body, bytes):
        size = longest(body, path) if len(body) > endpoint.most_text_bytes else len(body)
    else:
        size = body.length or HELD_BODY_BYTES
    if size > endpoint.most_text_bytes:
        text = f"A text of {size} bytes is longer than the model's context."
        raise RequestRefused("context_length_exceeded", text)


def _parts(body: Body, path: str, endpoint: Endpoint) -> Parts | None:
    """What an engine that takes so many texts at a time is asked one after the other; None: all at once."""
    if endpoint.texts_at_once is None or not isinstance(body, bytes):
        return None
    return split(body, path, endpoint.texts_at_once)


def _check_readable(response: EngineResponse) -> None:
    """Refuse an answer whose tokens nobody could count.

    Raises:
        RequestRefused: it is neither JSON nor a stream of events.
    """
    kind = response.header("content-type") or ""
    if not kind.startswith(("application/json", "text/event-stream")):
        text = "The model would answer this in a format that is not passed on: ask for JSON."
        raise RequestRefused("unsupported_parameter", text)


async def _adapted(body: Body, path: str, endpoint: Endpoint) -> tuple[Body, bool]:
    """The body as this endpoint takes it, our own engines' as it came, and whether to hide an unasked count.

    Raises:
        RequestRefused: the endpoint may not be asked that.
        BodyTooLarge: it was longer than announced.
    """
    if endpoint.model is None:
        return body, False
    whole = body if isinstance(body, bytes) else b"".join([piece async for piece in body.pieces])
    adapted = adapt(whole, path, endpoint.model)
    return adapted.body, adapted.unasked


async def _take_body(pieces: AsyncIterator[bytes], length: int | None, most_held: int) -> Body:
    """The whole body up to `most_held`; else what has come so far and the rest as it comes.

    Raises:
        BodyTooLarge: it is announced, or turns out, to be over the limit.
    """
    if length is not None and length > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    held: list[bytes] = []
    size = 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
        if size > most_held:
            return StreamedBody(_continue(b"".join(held), pieces, length or MAX_BODY_BYTES), length)
    return b"".join(held)


async def _continue(begun: bytes, rest: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    """More bytes than announced would read as a second request on the engine's connection."""
    size = len(begun)
    yield begun
    async for piece in rest:
        size += len(piece)
        if size > limit:
            raise BodyTooLarge(limit)
        yield piece
