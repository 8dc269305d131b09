"""One request's way to a node and back: choose, open, and keep account of it.

Owns the tries, the ticket, the receipt and the usage record of a request. Must not know HTTP servers: bytes
go in, bytes come out, failures are `RequestFailed`. Which node serves is found by :mod:`hub.finding`; between
its answer and the opening of the stream nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import refusals
from hub.admission import Admission, Admitted
from hub.calls import Call, check_capabilities
from hub.demand import Demand
from hub.errors import RequestFailed
from hub.finding import Finder, Places, RefusalLog
from hub.heads import DIGEST_HEADER, check_success, digest_of, header
from hub.identity import derived_secret
from hub.policy import NodeFacts
from hub.queueing import WaitingRoom
from hub.receipts import ReceiptCheck
from hub.registry import Registry
from hub.storage.records import UsageRecord
from models.catalog import Catalog
from tunnel.errors import ReceiptInvalid, ResetCode, SessionClosed, StreamReset, TooManyStreams
from tunnel.identity import Ticket, TicketIssuer
from tunnel.messages import Head, Open
from tunnel.receipts import RECEIPT_HEADER
from tunnel.session import OutboundStream
from tunnel.tracing import NO_SPAN, TRACEPARENT, Span

log = logging.getLogger(__name__)

MAX_TRIES = 3
TICKET_LIFETIME_S = 60
MAX_ERROR_BYTES = 64 * 1024
"""Bytes of a node's error response that are read; more of it tells nobody anything."""

ErrorReader = Callable[[int, bytes, str | None], RequestFailed]
"""Reads the error response of a node: status, body, ``Retry-After``."""


class UsageLog(Protocol):
    """What is asked of metering."""

    def record(self, record: UsageRecord) -> None:
        """Make the record durable before returning."""
        ...


class Dispatcher:
    """What all requests share on their way to a node."""

    def __init__(
        self,
        *,
        registry: Registry,
        admission: Admission,
        catalog: Catalog,
        usage: UsageLog,
        hub_key: Ed25519PrivateKey,
        clock: Callable[[], float],
        queue_timeout_s: float,
        read_error: ErrorReader,
        on_record: Callable[[UsageRecord], None],
        on_refused: RefusalLog = lambda *_refusal: None,
        max_waiting: int = 256,
        demand: Demand[Admitted] | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            registry: the live nodes.
            admission: confirms a caller again after every wait.
            catalog: the models and what they can do.
            usage: where each request leaves its record.
            hub_key: signs tickets.
            clock: UTC seconds since the epoch.
            queue_timeout_s: seconds a request waits for a permitted node that is full.
            read_error: understands a node's error responses.
            on_record: told of every record, for the metrics.
            on_refused: told of every refusal by policy, for the audit log; it must not fail.
            max_waiting: requests of one organisation that may wait for one model at once.
            demand: told of every request that needs a place, and of every answer's length.
        """
        self.registry = registry
        self.catalog = catalog
        self.usage = usage
        self.tickets = TicketIssuer(hub_key)
        self.receipts = ReceiptCheck(hub_key.public_key())
        self.clock = clock
        self.read_error = read_error
        self.on_record = on_record
        self.places = Places(
            registry=registry,
            admission=admission,
            catalog=catalog,
            waiting=WaitingRoom(registry, limit=max_waiting),
            demand=demand or Demand(),
            ring_secret=derived_secret(hub_key, "conversations"),
            queue_timeout_s=queue_timeout_s,
            on_refused=on_refused,
        )

    def begin(self, call: Call, span: Span = NO_SPAN) -> Dispatch:
        """Take a request on; its steps are traced within ``span``.

        Raises:
            RequestFailed: ``unsupported_parameter``: the model cannot do what is asked.
        """
        spec = self.catalog.get(call.model)
        if spec is not None:
            check_capabilities(call, spec.capabilities)
        return Dispatch(self, call, span)


class Dispatch:
    """One request. `connect`, then read `stream` until it is finished, then `finish`; `close` in any case."""

    def __init__(self, dispatcher: Dispatcher, call: Call, span: Span = NO_SPAN) -> None:
        self._parts = dispatcher
        self._call = call
        self._finder = Finder(dispatcher.places, call)
        self._span = span
        self._steps = ExitStack()
        self._exchange = NO_SPAN
        self._failure: RequestFailed | None = None
        self._began = asyncio.get_running_loop().time()
        self._first_byte_at: float | None = None
        self._recorded = False
        self._ticket: Ticket | None = None
        self._features: tuple[str, ...] = ()
        self.events = 0
        """Events of a stream that have come: what was generated, where nobody says how much it was."""
        self.used = 0
        """Tokens of its record, prompt and completion; 0 until there is one."""
        self.pinned = False
        """Set once the caller has been told which node answers: no other is tried from then on."""
        self.facts: NodeFacts | None = None
        self.stream: OutboundStream | None = None
        self.head: Head | None = None
        self.receipt: str | None = None
        """The node's signed word on where the request ran; ``None`` from a node of an older version."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the caller is told of where the answer comes from."""
        if self.facts is None:
            return []
        found = [(b"x-porten-node", self.facts.node_id.encode())]
        if self.facts.region is not None:
            found.append((b"x-porten-region", self.facts.region.encode()))
        if (digest := self._digest(self.facts.node_id)) is not None:
            found.append((b"x-porten-model-digest", digest.encode()))
        if self.receipt is not None:
            found.append((RECEIPT_HEADER.encode(), self.receipt.encode()))
        return found

    def _digest(self, node_id: str) -> str | None:
        if self.head is not None:
            return digest_of(header(self.head, DIGEST_HEADER))
        status = self._parts.registry.model_status(node_id, self._call.model)
        return None if status is None else digest_of(status.digest)

    async def connect(self) -> tuple[OutboundStream, bytes | None]:
        """Find a node and wait for the first bytes of its answer; until they come, others may be tried.

        Returns:
            The stream, and its first bytes (``None`` where the answer is empty).

        Raises:
            RequestFailed: nobody may and can serve, or those who could have failed.
        """
        for _ in range(MAX_TRIES):
            unasked = False
            try:
                stream = await self._open()
                return stream, await self._first_bytes(stream)
            except RequestFailed as failure:
                self._failure = failure
            except StreamReset as reset:
                self._failure = refusals.from_reset(reset)
                unasked = reset.code is ResetCode.LOAD_FAILED
                log.warning("stream reset before its first byte", extra=self._event("dispatch.reset", reset))
            elsewhere = unasked or self._failure.code in refusals.TRY_ELSEWHERE
            if self.pinned or self.stream is None or not elsewhere:
                break
            self._leave(ResetCode.CANCELLED)
        assert self._failure is not None
        raise self._failure

    async def _open(self) -> OutboundStream:
        """Choose a node and open a stream to it. A node that has just gone is passed over."""
        while True:
            with self._span.child("porten.route"):
                admitted, facts = await self._finder.choose(self._failure)
            session = self._parts.registry.session(facts.node_id)
            if session is None:
                raise RuntimeError("the registry offered a node without a session")
            self._finder.tried.add(facts.node_id)
            self.facts, self.head, self._features = facts, None, session.features
            self._exchange = self._steps.enter_context(
                self._span.child("porten.tunnel", node_id=facts.node_id, model=self._call.model)
            )
            try:
                self.stream = await session.open(self._request(admitted, facts, session.generation))
            except (SessionClosed, TooManyStreams) as error:
                self._failure = refusals.from_opening(error)
                self._release()
                if self.pinned:
                    raise self._failure from error
                continue
            return self.stream

    def _request(self, admitted: Admitted, facts: NodeFacts, generation: int) -> Open:
        call, now = self._call, int(self._parts.clock())
        # A node takes a ticket once; each try is a request of its own to it.
        tries = len(self._finder.tried)
        uid = call.request_id if tries == 1 else f"{call.request_id}.{tries}"
        ticket = Ticket(
            node_id=facts.node_id,
            owner_id=facts.owner_id,
            region=facts.region,
            organisation_id=admitted.key.organisation_id,
            model=call.model,
            request_id=uid,
            generation=generation,
            issued_at=now,
            expires_at=now + TICKET_LIFETIME_S,
            key_id=admitted.key.id,
            policy_hash=admitted.policy_hash,
        )
        self._ticket = ticket
        return Open(
            uid=uid,
            generation=generation,
            method="POST",
            path=call.path,
            headers=(
                ("content-type", "application/json"),
                ("x-porten-warmup-budget", f"{call.warmup_budget_s:g}"),
                *((TRACEPARENT, joined) for joined in (self._exchange.traceparent,) if joined),
            ),
            deadline=call.deadline,
            ticket=self._parts.tickets.issue(ticket),
            content_length=len(call.body),
        )

    async def _first_bytes(self, stream: OutboundStream) -> bytes | None:
        await stream.send(self._call.body, fin=True)
        head = await stream.head()
        if head.status >= 400:
            raise await self._read_error(stream, head)
        check_success(head)
        self.receipt = self._checked_receipt(head)
        self.head = head
        first = await stream.receive()
        self._first_byte_at = asyncio.get_running_loop().time()
        return first

    def _checked_receipt(self, head: Head) -> str | None:
        """A node whose receipt is not true has not served the request as it was asked to: no answer of it."""
        assert self._ticket is not None
        try:
            return self._parts.receipts.receipt_of(head, self._ticket, self._features, self._parts.clock())
        except ReceiptInvalid as error:
            fields = {"request_id": self._call.request_id, "node_id": self._ticket.node_id}
            log.error(  # noqa: TRY400 - the exception's words say all
                "a node's receipt does not hold: %s", error, extra={"event": "receipt.refused", **fields}
            )
            raise RequestFailed(
                "engine_error", "The node's receipt for this answer does not hold."
            ) from error

    async def _read_error(self, stream: OutboundStream, head: Head) -> RequestFailed:
        body = bytearray()
        while len(body) < MAX_ERROR_BYTES and (piece := await stream.receive()) is not None:
            body += piece
        return self._parts.read_error(head.status, bytes(body), header(head, "retry-after"))

    def finish(self) -> None:
        """Account for an answer that is complete; called before its last bytes go out."""
        self._record("ok")

    def fail(self, outcome: str, code: ResetCode = ResetCode.CANCELLED) -> None:
        """Account for a request that ends without a complete answer, and stop the node's work on it."""
        self._record(outcome)
        self._leave(code)

    def close(self) -> None:
        """Let go of whatever is still held; harmless after `finish` and `fail`."""
        self.fail("cancelled")

    def _leave(self, code: ResetCode) -> None:
        if self.stream is not None and not self.stream.finished:
            self.stream.reset(code)
        self.stream = None
        self._release()

    def _release(self) -> None:
        """Give back the place on the node, where the step on it ends."""
        self._steps.close()
        self._finder.release()

    def _record(self, outcome: str) -> None:
        if self._recorded or self.facts is None:
            return
        self._recorded = True
        record = self._usage(self.facts, outcome)
        self.used = record.prompt_tokens + record.completion_tokens
        self._parts.places.demand.answered(record.model, record.completion_tokens)
        self._parts.usage.record(record)
        self._exchange.set(
            outcome=outcome,
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
        )
        self._parts.on_record(record)

    def _usage(self, facts: NodeFacts, outcome: str) -> UsageRecord:
        trailers = self.stream.trailers if self.stream is not None else None
        usage = trailers.usage if trailers is not None else None
        prompt = usage.prompt_tokens if usage else 0
        now = asyncio.get_running_loop().time()
        key = self._call.admitted.key
        return UsageRecord(
            request_id=self._call.request_id,
            key_id=key.id,
            organisation_id=key.organisation_id,
            node_id=facts.node_id,
            region=facts.region,
            model=self._call.model,
            prompt_tokens=prompt,
            cached_tokens=min(usage.cached_tokens, prompt) if usage else 0,
            completion_tokens=usage.completion_tokens if usage else self.events,
            ttft_ms=None if self._first_byte_at is None else (self._first_byte_at - self._began) * 1000,
            duration_ms=(now - self._began) * 1000,
            outcome=outcome,
            created_at=self._parts.clock(),
        )

    def _event(self, name: str, reset: StreamReset) -> dict[str, str | None]:
        node_id = self.facts.node_id if self.facts else None
        return {
            "event": name,
            "request_id": self._call.request_id,
            "node_id": node_id,
            "reset": reset.code.name,
        }
