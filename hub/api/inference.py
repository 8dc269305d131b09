"""The endpoints that models answer: chats in three protocols, completions, embeddings, rankings.

Owns the HTTP side of an exchange: who asks, what they send, and passing the answer's bytes on as they come.
Must not know nodes or policies: `hub.dispatch` finds who answers. Nothing is parsed, logged or looked up per
chunk.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Route
from starlette.types import Message, Receive, Scope, Send

from hub import refusals
from hub.admission import Admitted
from hub.api import openai_errors
from hub.api.edge import set_error_code
from hub.api.pictures import has_pictures
from hub.api.protocols import Protocol, protocol_of
from hub.api.rate_headers import rate_headers
from hub.api.request import Headers, Peek, Wishes, read_body, wishes
from hub.api.tracing import span_of
from hub.calls import Call, LookAgain
from hub.composition import Hub
from hub.dispatch import Dispatch
from hub.errors import RequestFailed, SpoolUnavailable
from hub.heads import DEFAULT_KIND, header
from hub.limits import Hold
from hub.quotas import Standing, estimate
from tunnel.errors import ResetCode, StreamReset
from tunnel.messages import Head
from tunnel.receipts import RECEIPT_HEADER

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
"""Seconds a client that asked to stream waits in silence before it is sent a comment."""

STALL_S = 60.0
"""Seconds a client may take nothing of what is sent to it: then its request ends, and the node's work too."""
_LOOKS = 4  # in that time

_COMMENT = b": keep-alive\n\n"
_SSE = b"text/event-stream"
_EVENT = b"data: {"  # as engines write them: neither a comment nor the [DONE]

ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/rerank": "rerank",
}
"""Paths with the capability that each asks of a model."""
_STREAMED = frozenset({"chat", "completions"})
"""What can be asked for piece by piece; a `stream` in any other request is ignored, as engines do."""


def routes(hub: Hub) -> list[BaseRoute]:
    """The inference endpoints."""
    return [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints(hub).items()]


def endpoints(hub: Hub) -> dict[str, Inference]:
    """The same by their paths, for who needs no router to tell them apart."""
    return {path: Inference(hub, path, capability) for path, capability in ENDPOINTS.items()}


Caller = Callable[[Headers], Awaitable[Admitted]]
"""Says who asks; raises `RequestFailed` where that is nobody who may."""


class Inference:
    """One endpoint, as an ASGI application."""

    def __init__(
        self,
        hub: Hub,
        path: str,
        capability: str,
        caller: Caller | None = None,
        look_again: LookAgain | None = None,
    ) -> None:
        """Answer what is asked at a path.

        Args:
            hub: the Hub.
            path: what is asked of the node.
            capability: what it asks of a model.
            caller: says who asks; whoever holds the secret that the request brings, where unset.
            look_again: see `hub.calls.Call`; for a caller that is known by more than the key.
        """
        self._hub = hub
        self._path = path
        self._capability = capability
        self._protocol = protocol_of(path)
        self._caller = caller or self._holder_of_the_secret
        self._look_again = look_again

    async def _holder_of_the_secret(self, headers: Headers) -> Admitted:
        return await self._hub.admission.authenticate(self._protocol.authorization(headers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        answer = _Answer(send, scope["state"]["request_id"], self._protocol)
        try:
            await self._serve(scope, receive, answer)
        except RequestFailed as failure:
            set_error_code(scope, failure.code)
            await answer.fail(failure)
        except ClientDisconnect:
            set_error_code(scope, "cancelled")

    async def _serve(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        headers = Headers(scope["headers"])
        began = asyncio.get_running_loop().time()
        admitted = await self._caller(headers)
        wished = wishes(headers, warmup_budget_s=self._hub.config.warmup_budget_s)
        give_up = began + min(wished.deadline_s, self._hub.config.request_deadline_s)
        answer.standings = lambda: self._hub.limits.standings(admitted.key)
        with self._hub.limits.request(admitted.key) as hold:
            call, asked = await self._read(
                headers, receive, answer.request_id, admitted, hold, wished=wished, give_up=give_up
            )
            if not self._hub.meter.has_room():
                raise _unaccountable()
            hold.reserve(self._estimate(asked, len(call.body)))
            with self._hub.metrics.active_streams.track_inprogress():
                dispatch = self._hub.dispatcher.begin(call, span_of(scope))
                try:
                    await _carry(
                        dispatch,
                        answer,
                        receive,
                        give_up,
                        stream=bool(asked.stream) and self._capability in _STREAMED,
                    )
                finally:
                    hold.used = dispatch.used

    def _estimate(self, asked: Peek, body_bytes: int) -> int:
        spec = self._hub.catalog.get(asked.model)
        return estimate(
            body_bytes,
            asked.max_completion_tokens if asked.max_tokens is None else asked.max_tokens,
            generates=self._capability in _STREAMED,
            context_length=None if spec is None else spec.context_length,
        )

    async def _read(
        self,
        headers: Headers,
        receive: Receive,
        request_id: str,
        admitted: Admitted,
        hold: Hold,
        *,
        wished: Wishes,
        give_up: float,
    ) -> tuple[Call, Peek]:
        config = self._hub.config
        allowed_s = min(wished.deadline_s, config.request_deadline_s)
        deadline = self._hub.clock() + allowed_s
        with hold.receiving():
            body = await read_body(headers, receive, config.body_limit_bytes, hold.grow, give_up=give_up)
        asked = self._protocol.peek(body)
        self._hub.dispatcher.places.check_model(request_id, admitted, asked.model)
        call = Call(
            request_id=request_id,
            admitted=admitted,
            model=asked.model,
            path=self._path,
            capability=self._capability,
            needs_tools=asked.needs_tools,
            needs_vision=self._shows_pictures_in_vain(asked.model, body),
            offered_as=self._protocol.offered_as,
            body=body,
            narrowing=wished.narrowing,
            warmup_budget_s=min(wished.warmup_budget_s, allowed_s),
            deadline=deadline,
            look_again=self._look_again,
        )
        return call, asked

    def _shows_pictures_in_vain(self, model: str, body: bytes) -> bool:
        """Whether there are pictures and the catalog knows of no eyes: then a node's word is asked for."""
        spec = self._hub.catalog.get(model)
        if self._capability != "chat" or (spec is not None and "vision" in spec.capabilities):
            return False
        return has_pictures(body)


async def _carry(
    dispatch: Dispatch, answer: _Answer, receive: Receive, give_up: float, *, stream: bool
) -> None:
    """See a request to its end; one that cannot be accounted for has failed, whatever else became of it."""
    try:
        await _accounted(dispatch, answer, receive, give_up, stream=stream)
    except SpoolUnavailable as error:
        log.error(  # noqa: TRY400 - the exception's words say all
            "usage is lost",
            extra={"event": "usage.lost", "request_id": answer.request_id, "error": str(error)},
        )
        raise _unaccountable() from error


async def _accounted(
    dispatch: Dispatch, answer: _Answer, receive: Receive, give_up: float, *, stream: bool
) -> None:
    """Whichever its end is: answered, failed, out of time, or nobody there any more."""
    try:
        async with _WhileWanted(receive, answer, give_up):
            await answer.relay(dispatch, stream=stream)
    except TimeoutError:
        dispatch.fail("deadline_exceeded", ResetCode.DEADLINE)
        raise refusals.deadline_exceeded() from None
    except StreamReset as reset:
        failure = refusals.from_reset(reset)
        dispatch.fail(failure.code)
        raise failure from reset
    except RequestFailed as failure:
        dispatch.fail(failure.code)
        raise
    finally:
        dispatch.close()


def _unaccountable() -> RequestFailed:
    return RequestFailed(
        "internal_error",
        "The Hub cannot record usage: its disk is full or cannot be written. Tell its operator.",
    )


Standings = tuple[Standing | None, Standing | None]


def _no_standings() -> Standings:
    """Before it is known who asks, there are no limits to speak of."""
    return None, None


@dataclass(slots=True)
class _Answer:
    """What the client has been sent so far."""

    send: Send
    request_id: str
    protocol: Protocol
    started: bool = False
    is_sse: bool = False
    sending: bool = False
    pieces: int = 0
    standings: Callable[[], Standings] = _no_standings
    _comments: asyncio.Task[None] | None = field(default=None, init=False)

    async def relay(self, dispatch: Dispatch, *, stream: bool) -> None:
        """Pass an answer on. Its usage is on disk before its last bytes leave."""
        loop = asyncio.get_running_loop()
        timer = loop.call_later(KEEP_ALIVE_S, self._begin_comments, dispatch) if stream else None
        try:
            exchange, piece = await dispatch.connect()
        finally:
            if timer is not None:
                timer.cancel()
            await self._end_comments()
        if exchange.finished:
            dispatch.finish()
        send, receive = self.send, exchange.receive
        if not self.started:
            await self._start(*_success(dispatch, piece if exchange.finished else None))
        elif dispatch.receipt is not None:  # the headers left with the first comment
            comment = b": " + RECEIPT_HEADER.encode() + b" " + dispatch.receipt.encode() + b"\n\n"
            await send({"type": "http.response.body", "body": comment, "more_body": True})
        is_sse = self.is_sse
        while piece is not None and not exchange.finished:
            if is_sse:
                dispatch.events += piece.count(_EVENT)
            self.sending = True
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self.sending = False
            self.pieces += 1
            piece = await receive()
        dispatch.finish()
        self.sending = True  # the last piece waits for a client that takes nothing as any other does
        await send({"type": "http.response.body", "body": piece or b"", "more_body": False})
        self.sending = False

    async def fail(self, failure: RequestFailed) -> None:
        """End with an error: as a response, as an event of a stream that has begun, or by breaking off."""
        if not self.started:
            body = self.protocol.envelope(failure, self.request_id)
            await self._start(openai_errors.kind_of(failure).status, openai_errors.headers(failure, body))
        elif self.is_sse:
            body = self.protocol.event(failure, self.request_id)
        else:
            return  # without its end: the server closes the connection, and no client takes it for whole
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.is_sse = any(name == b"content-type" and value.startswith(_SSE) for name, value in headers)
        headers = [*headers, *rate_headers(*self.standings())]
        message: Message = {"type": "http.response.start", "status": status, "headers": headers}
        await self.send(message)
        self.started = True

    def _begin_comments(self, dispatch: Dispatch) -> None:
        self._comments = asyncio.get_running_loop().create_task(self._comment(dispatch))

    async def _comment(self, dispatch: Dispatch) -> None:
        """Keep the connection alive through a long load or prefill. Once told, the node stays the same."""
        dispatch.pinned = dispatch.facts is not None
        await self._start(200, [(b"content-type", _SSE), *_NO_BUFFERING, *dispatch.headers])
        while True:
            await self.send({"type": "http.response.body", "body": _COMMENT, "more_body": True})
            await asyncio.sleep(KEEP_ALIVE_S)

    async def _end_comments(self) -> None:
        if self._comments is not None:
            self._comments.cancel()
            await asyncio.wait([self._comments])
            if not self._comments.cancelled():
                self._comments.result()


_NO_BUFFERING = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))


def _success(dispatch: Dispatch, whole: bytes | None) -> tuple[int, list[tuple[bytes, bytes]]]:
    head = dispatch.head or Head(status=200, headers=())
    kind = header(head, "content-type") or DEFAULT_KIND
    headers = [(b"content-type", kind.encode("ascii")), *dispatch.headers]
    if kind.startswith("text/event-stream"):
        headers += _NO_BUFFERING
    elif whole is not None:
        headers.append((b"content-length", str(len(whole)).encode()))
    return head.status, headers


class _WhileWanted:
    """Ends what runs inside it once nobody waits for it any more.

    Raises `ClientDisconnect` when the client goes away or takes nothing more, `TimeoutError` when the
    request's time is up. One timer for both and one task: a request pays for each.
    """

    def __init__(self, receive: Receive, answer: _Answer, give_up: float) -> None:
        self._receive = receive
        self._answer = answer
        self._give_up = give_up
        self._why: type[Exception] | None = None
        self._stuck_at: int | None = None
        self._stuck_looks = 0

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._watcher = self._loop.create_task(self._watch())
        self._look_later()
        return self

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientDisconnect)

    def _look_later(self) -> None:
        at = min(self._loop.time() + STALL_S / _LOOKS, self._give_up)
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        """Now and then: a piece that was on its way at the last look and still is, is stuck."""
        if self._loop.time() >= self._give_up:
            self._end(TimeoutError)
            return
        answer = self._answer
        stuck_at = answer.pieces if answer.sending else None
        stuck = stuck_at is not None and stuck_at == self._stuck_at
        self._stuck_looks = self._stuck_looks + 1 if stuck else 0
        if self._stuck_looks == _LOOKS:
            log.info("client takes nothing", extra={"event": "api.stalled", "request_id": answer.request_id})
            self._end(ClientDisconnect)
            return
        self._stuck_at = stuck_at
        self._look_later()

    def _end(self, why: type[Exception]) -> None:
        if self._why is None:
            self._why = why
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._watcher.cancel()
        why = self._why
        if why is not None and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise why from error
