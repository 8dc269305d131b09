"""A stream of the tunnel answered by an engine: the ticket first, then bytes through.

Owns what the tunnel's side adds to `runtime.forward`: the check of the ticket, the deadline, the receipt,
trailers, and which reset code a fault becomes. Must not know engines, models or the local API. Never logs a
body.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Container
from dataclasses import replace

from runtime.api_paths import PATHS
from runtime.envelope import DIGEST_HEADER, from_fault, unknown_url
from runtime.errors import (
    BodyTooLarge,
    EngineFailed,
    LoadFailed,
    Overloaded,
    RequestRefused,
    RuntimeFault,
    Warming,
)
from runtime.forward import DEFAULT_WARMUP_S, Forwarder, Headers, Job, Outcome, finish_with
from runtime.metrics import NodeMetrics
from runtime.usage import TokenUsage
from tunnel.errors import ResetCode, SessionClosed, StreamReset, TicketRefused
from tunnel.identity import Ticket, TicketVerifier
from tunnel.messages import MAX_TOKENS, Head, Trailers, Usage
from tunnel.receipts import RECEIPT_HEADER, Receipt, ReceiptSigner
from tunnel.session import InboundStream
from tunnel.tracing import NO_TRACING, TRACEPARENT, Span, Tracing

logger = logging.getLogger(__name__)

WARMUP_HEADER = "x-porten-warmup-budget"
MAX_REASON_CHARACTERS = 200
SOURCE = "tunnel"
_OK = 200


class Relay:
    """Handles inbound streams. One object for the node's whole life, across sessions.

    Args:
        forwarder: carries requests to engines.
        verifier: gives the verifier of the credential in force now; it changes when the Hub moves the node.
        signer: gives what signs receipts under that same credential.
        generations: the generations of the sessions that live now.
        metrics: counts.
        now: unix seconds.
        tracing: where the node's steps are traced, within the Hub's.
    """

    def __init__(
        self,
        *,
        forwarder: Forwarder,
        verifier: Callable[[], TicketVerifier],
        signer: Callable[[], ReceiptSigner],
        generations: Container[int],
        metrics: NodeMetrics,
        now: Callable[[], float] = time.time,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self._forwarder = forwarder
        self._verifier = verifier
        self._signer = signer
        self._generations = generations
        self._metrics = metrics
        self._now = now
        self._tracing = tracing
        self.refusing = False
        """While True, every new stream is refused before it is started: the node is shutting down."""

    async def __call__(self, stream: InboundStream) -> None:
        """Answer one stream, or reset it with the code that tells the Hub what may be tried elsewhere."""
        opened = stream.open
        with self._tracing.span("porten.node", _parent(opened.headers), request_id=opened.uid) as span:
            outcome = await self._serve(stream, span)
            span.set(outcome=outcome.outcome)

    async def _serve(self, stream: InboundStream, span: Span) -> Outcome:
        started = time.monotonic()
        model, outcome = "", Outcome("cancelled")
        try:
            with self._metrics.active(SOURCE):
                ticket = self._admit(stream)
                model = ticket.model
                outcome = await self._answer(stream, ticket, self._sink(stream, ticket), span)
        except TicketRefused as refused:
            outcome = _reset(stream, ResetCode.TICKET_REFUSED, refused.gate)
        except _Refused as refused:
            outcome = _reset(stream, ResetCode.REFUSED, str(refused))
        except (StreamReset, SessionClosed):
            pass  # whoever asked has gone; nobody is left to be told
        finally:
            self._ended(stream, model, outcome, time.monotonic() - started)
        return outcome

    def _admit(self, stream: InboundStream) -> Ticket:
        """The ticket, verified against this node's own credential.

        Raises:
            TicketRefused: the request is not meant for this node, or was asked before.
            _Refused: the node takes no new requests.
        """
        if self.refusing:
            raise _Refused("the node is shutting down")
        opened = stream.open
        if opened.generation not in self._generations:
            raise TicketRefused("generation")
        return self._verifier().verify(
            opened.ticket, now=self._now(), request_id=opened.uid, generation=opened.generation
        )

    def _sink(self, stream: InboundStream, ticket: Ticket) -> "_StreamSink":
        """Where the answer goes. Its receipt is under the credential that the ticket was checked against."""
        return _StreamSink(stream, _ReceiptWriter(self._signer(), ticket, self._now))

    async def _answer(
        self, stream: InboundStream, ticket: Ticket, sink: "_StreamSink", span: Span
    ) -> Outcome:
        remaining_s = stream.open.deadline - self._now()
        try:
            async with asyncio.timeout(max(0.0, remaining_s)) as limit:
                return await self._forward(stream, ticket, sink, remaining_s, span)
        except TimeoutError:
            if not limit.expired():
                raise
            return _reset(stream, ResetCode.DEADLINE, "the request's deadline passed")

    async def _forward(
        self, stream: InboundStream, ticket: Ticket, sink: "_StreamSink", remaining_s: float, span: Span
    ) -> Outcome:
        opened = stream.open
        if opened.method != "POST" or opened.path not in PATHS:
            return await finish_with(sink, unknown_url(opened.path), opened.uid)
        job = Job(
            request_id=opened.uid,
            model=ticket.model,
            method=opened.method,
            path=opened.path,
            headers=opened.headers,
            pieces=_pieces(stream),
            content_length=opened.content_length,
            budget_s=min(warmup_budget_s(opened.headers), remaining_s),
            share=ticket.organisation_id,
            span=span,
        )
        try:
            return await self._forwarder.forward(job, sink)
        except RuntimeFault as fault:
            if isinstance(fault, Warming | BodyTooLarge | RequestRefused) and not sink.begun:
                return await finish_with(sink, from_fault(fault), opened.uid)
            outcome = _reset(stream, reset_code(fault), str(fault))
            # What an engine said while it answered may hold pieces of the request.
            return replace(outcome, reason=None) if isinstance(fault, EngineFailed) else outcome

    def _ended(self, stream: InboundStream, model: str, outcome: Outcome, duration_s: float) -> None:
        self._metrics.request_ended(
            SOURCE,
            model,
            outcome.outcome,
            duration_s=duration_s,
            usage=outcome.usage,
            ttft_ms=outcome.ttft_ms,
        )
        fields = {
            "event": "request_ended",
            "request_id": stream.open.uid,
            "model": model,
            "outcome": outcome.outcome,
            "duration_s": round(duration_s, 4),
        }
        if outcome.reason is not None:
            fields["reason"] = outcome.reason
        logger.info("request %s ended: %s", stream.open.uid, outcome.outcome, extra=fields)


class _Refused(Exception):
    """The node does not start this request; another may."""


class _StreamSink:
    """The tunnel's end of an answer; `send` waits for the Hub's credit."""

    def __init__(self, stream: InboundStream, receipts: "_ReceiptWriter") -> None:
        self._stream = stream
        self._receipts = receipts
        self.begun = False

    async def head(self, status: int, headers: Headers) -> None:
        self.begun = True
        headers += self._receipts.headers(status, headers)
        await self._stream.send_head(Head(status=status, headers=headers))

    async def send(self, data: bytes) -> None:
        await self._stream.send(data)

    def offer(self, data: bytes) -> bool:
        return self._stream.offer(data)

    async def finish(self, data: bytes, outcome: Outcome) -> None:
        """One frame: the Hub writes the usage down before it passes the last bytes on."""
        await self._stream.send(data, fin=True, trailers=trailers(outcome))


class _ReceiptWriter:
    """Writes the receipt of one request, as its answer begins."""

    def __init__(self, signer: ReceiptSigner, ticket: Ticket, now: Callable[[], float]) -> None:
        self._signer = signer
        self._ticket = ticket
        self._now = now

    def headers(self, status: int, headers: Headers) -> Headers:
        """The header with the receipt; none for an error, nor for a Hub that does not name the key."""
        if status != _OK or not self._ticket.key_id:
            return ()
        mine, ticket = self._signer.credential, self._ticket
        receipt = Receipt(
            request_id=ticket.request_id,
            key_id=ticket.key_id,
            policy_hash=ticket.policy_hash,
            node_id=mine.node_id,
            owner_id=mine.owner_id,
            region=mine.region,
            model=ticket.model,
            model_digest=next((value for name, value in headers if name == DIGEST_HEADER), None),
            issued_at=int(self._now()),
        )
        return ((RECEIPT_HEADER, self._signer.sign(receipt)),)


def trailers(outcome: Outcome) -> Trailers:
    """An outcome as it rides in the last frame."""
    return Trailers(usage=_usage(outcome.usage), ttft_ms=outcome.ttft_ms, outcome=outcome.outcome)


def _usage(counted: TokenUsage | None) -> Usage | None:
    if counted is None or max(counted.prompt_tokens, counted.completion_tokens) > MAX_TOKENS:
        return None  # an engine that says such things has not counted
    return Usage(
        prompt_tokens=counted.prompt_tokens,
        cached_tokens=counted.cached_tokens,
        completion_tokens=counted.completion_tokens,
    )


def reset_code(fault: RuntimeFault) -> ResetCode:
    """What the Hub is told of a fault: whether another node may be tried, or the engine failed."""
    if isinstance(fault, Overloaded):
        return ResetCode.OVERLOADED
    if isinstance(fault, EngineFailed):
        return ResetCode.ENGINE_ERROR
    if isinstance(fault, LoadFailed):
        return ResetCode.LOAD_FAILED
    if isinstance(fault, BodyTooLarge):
        return ResetCode.NODE_ERROR
    return ResetCode.REFUSED  # nothing was started here: unknown, does not fit, no engine, stopping


def _parent(headers: Headers) -> str | None:
    """The span of the Hub's that this request belongs to, where it is traced."""
    return next((value for name, value in headers if name.lower() == TRACEPARENT), None)


def warmup_budget_s(headers: Headers) -> float:
    """Seconds the caller is ready to wait for a cold model; nonsense counts as nothing said."""
    for name, value in headers:
        if name.lower() == WARMUP_HEADER:
            try:
                seconds = float(value)
            except ValueError:
                break
            return seconds if 0 <= seconds < float("inf") else DEFAULT_WARMUP_S
    return DEFAULT_WARMUP_S


async def _pieces(stream: InboundStream) -> AsyncIterator[bytes]:
    while (piece := await stream.receive()) is not None:
        if piece:
            yield piece


def _reset(stream: InboundStream, code: ResetCode, reason: str) -> Outcome:
    stream.reset(code, reason[:MAX_REASON_CHARACTERS])
    return Outcome(code.name.lower(), reason=reason)
