"""One inference request of the local API, from the body it came with to the last ASGI message.

Owns the ASGI end of an answer and the notice that a client hung up. Must not know routes, or who may ask.
"""

import asyncio
import base64
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from runtime.api_paths import CAPABILITIES, PROTOCOLS
from runtime.envelope import ErrorAnswer, from_fault, no_such_endpoint
from runtime.error_shapes import ErrorShape, shape_of
from runtime.errors import BodyTooLarge, NodeStopping, RequestRefused, RuntimeFault
from runtime.forward import MAX_BODY_BYTES, Forwarder, Headers, Job, Outcome, finish_with
from runtime.metrics import NodeMetrics
from runtime.stateless import Members, check_members

SOURCE = "local"


class _Asked(msgspec.Struct):
    """What is read of a body; the rest goes to the engine unseen."""

    model: str


def new_request_id() -> str:
    """A request id: `req_` and 20 lowercase base32 characters."""
    return "req_" + base64.b32encode(secrets.token_bytes(13)).decode().lower()[:20]


Capabilities = Callable[[str], Collection[str] | None]
"""What a model of this node can do; None for a model that it does not have."""


class Inference:
    """One request, spoken in ASGI: status and headers are known only once the engine has answered."""

    def __init__(
        self,
        scope: Scope,
        forwarder: Forwarder,
        metrics: NodeMetrics,
        *,
        stopping: Callable[[], bool],
        capabilities: Capabilities,
    ) -> None:
        self._asked_headers = tuple(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        self._path: str = scope["path"]
        self._shape = shape_of(self._path)
        self._length = next((value for name, value in self._asked_headers if name == "content-length"), None)
        self._forwarder = forwarder
        self._metrics = metrics
        self._stopping = stopping
        self._capabilities = capabilities

    async def answer(self, receive: Receive, send: Send) -> None:
        """Answer; a client that hangs up cancels the engine's work."""
        started = time.monotonic()
        request_id = new_request_id()
        sink = _AsgiSink(send, request_id, self._shape)
        model, outcome = "", Outcome("cancelled")
        try:
            with self._metrics.active(SOURCE):
                body = await _read_body(receive, self._length)
                model = _model_of(body)
                self._check_capability(model)
                _check_stateless(body, self._path)
                work = self._forward(request_id, model, body, sink)
                outcome = await _unless_disconnected(work, receive)
        except _Unanswerable as problem:
            outcome = await finish_with(sink, problem.answer, request_id, self._shape)
        except RuntimeFault as fault:
            outcome = await sink.fail(from_fault(fault))
        except ClientGone:
            pass
        except asyncio.CancelledError:
            # The server's patience with answers in flight is at its end, and with it this node's.
            outcome = await sink.fail(from_fault(NodeStopping("the node is shutting down")))
        finally:
            duration = time.monotonic() - started
            self._metrics.request_ended(
                SOURCE,
                model,
                outcome.outcome,
                duration_s=duration,
                usage=outcome.usage,
                ttft_ms=outcome.ttft_ms,
            )

    def _check_capability(self, model: str) -> None:
        """Refuse what the model cannot do before gigabytes are loaded for it."""
        wanted, known = CAPABILITIES[self._path], self._capabilities(model)
        if known is not None and wanted not in known:
            text = f"The model does not do {wanted}."
            raise _Unanswerable(_bad_request("unsupported_parameter", text, "model"))
        word = PROTOCOLS.get(self._path)
        if known is not None and word is not None and word not in known:
            raise RequestRefused("unsupported_parameter", no_such_endpoint(self._path))

    async def _forward(self, request_id: str, model: str, body: bytes, sink: "_AsgiSink") -> Outcome:
        if self._stopping():
            raise NodeStopping("the node is shutting down")
        job = Job(
            request_id=request_id,
            model=model,
            method="POST",
            path=self._path,
            headers=self._asked_headers,
            pieces=_once(body),
            content_length=len(body),
            shape=self._shape,
        )
        return await self._forwarder.forward(job, sink)


class ClientGone(Exception):
    """The client hung up."""


class _Unanswerable(Exception):
    """A request that no engine needs to see."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.code)
        self.answer = answer


class _AsgiSink:
    """The client's end of an answer; the server's `send` waits while the client does not read."""

    def __init__(self, send: Send, request_id: str, shape: ErrorShape) -> None:
        self._send = send
        self._shape = shape
        self._request_id = request_id
        self._begun = False
        self._streamed = False

    async def head(self, status: int, headers: Headers) -> None:
        self._begun = True
        self._streamed = any(value.startswith("text/event-stream") for _, value in headers)
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        raw.append((b"x-request-id", self._request_id.encode()))
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def offer(self, data: bytes) -> bool:
        """A server's `send` may always wait."""
        del data
        return False

    async def finish(self, data: bytes, outcome: Outcome) -> None:
        del outcome
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def fail(self, answer: ErrorAnswer) -> Outcome:
        """An error before the head, or in the midst of a stream: an event, and no `[DONE]` after it."""
        if not self._begun:
            return await finish_with(self, answer, self._request_id, self._shape)
        if not self._streamed:
            raise ConnectionError(answer.code)  # half a JSON document: the server cuts the connection
        await self.finish(self._shape.event(answer), Outcome(answer.code))
        return Outcome(answer.code)


async def _read_body(receive: Receive, length: str | None) -> bytes:
    if length is not None and length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise BodyTooLarge(MAX_BODY_BYTES)
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
    return bytes(body)


def _model_of(body: bytes) -> str:
    """The model a body names; what is wrong with it is said without repeating it."""
    try:
        return msgspec.json.decode(body, type=_Asked).model
    except msgspec.ValidationError:
        raise _Unanswerable(_bad_request("invalid_request", "`model` must be a string", "model")) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _Unanswerable(_bad_request("invalid_json", "the body is not valid JSON")) from None


def _check_stateless(body: bytes, path: str) -> None:
    """Only the protocols that know of stored state are looked at; the body was read once and is an object."""
    if path in PROTOCOLS:
        check_members(msgspec.json.decode(body, type=Members), path)


def _bad_request(code: str, message: str, param: str | None = None) -> ErrorAnswer:
    return ErrorAnswer(400, code, "invalid_request_error", message, param)


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _unless_disconnected(work: Coroutine[Any, Any, Outcome], receive: Receive) -> Outcome:
    """The work's result, or ClientGone and the work cancelled."""
    task: asyncio.Task[Outcome] = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        for each in (task, watch):
            each.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
