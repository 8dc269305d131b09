"""One request's way to a node and back: choose, open, and keep account of it.

Owns the tries, the queue, the ticket and the usage record of a request. Must not know HTTP servers: bytes go
in, bytes come out, failures are `RequestFailed`. Who may serve is judged by the router at each choice anew;
between its answer and the opening of the stream nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import refusals
from hub.admission import Admission, Admitted
from hub.errors import RequestFailed
from hub.heads import DIGEST_HEADER, check_success, digest_of, header
from hub.policy import Narrowing, NodeFacts, permits
from hub.registry import Registry
from hub.router import Refusal, RefusalCode, Selection, select_replica
from hub.storage.records import UsageRecord
from models.catalog import Catalog
from tunnel.errors import ResetCode, SessionClosed, StreamReset, TooManyStreams
from tunnel.identity import Ticket, issue_ticket
from tunnel.messages import Head, Open
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request that has been read and whose caller is known.

    Attributes:
        capability: what the endpoint asks of a model.
        needs_tools: the body names tools.
        warmup_budget_s: seconds it may wait for a model to load.
        deadline: UTC seconds since the epoch after which nobody waits for it.
    """

    request_id: str
    admitted: Admitted
    model: str
    path: str
    capability: str
    needs_tools: bool
    body: bytes
    narrowing: Narrowing
    warmup_budget_s: float
    deadline: float


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
        """
        self.registry = registry
        self.admission = admission
        self.catalog = catalog
        self.usage = usage
        self.hub_key = hub_key
        self.clock = clock
        self.queue_timeout_s = queue_timeout_s
        self.read_error = read_error
        self.on_record = on_record

    def begin(self, call: Call, span: Span = NO_SPAN) -> Dispatch:
        """Take a request on; its steps are traced within ``span``.

        Raises:
            RequestFailed: ``unsupported_parameter``: the model cannot do what is asked.
        """
        spec = self.catalog.get(call.model)
        if spec is not None:
            _check_capabilities(call, spec.capabilities)
        return Dispatch(self, call, span)


class Dispatch:
    """One request. `connect`, then read `stream` until it is finished, then `finish`; `close` in any case."""

    def __init__(self, dispatcher: Dispatcher, call: Call, span: Span = NO_SPAN) -> None:
        self._parts = dispatcher
        self._call = call
        self._span = span
        self._exchange = NO_SPAN
        self._tried: set[str] = set()
        self._failure: RequestFailed | None = None
        self._held = ExitStack()
        self._began = asyncio.get_running_loop().time()
        self._first_byte_at: float | None = None
        self._recorded = False
        self.pinned = False
        """Set once the caller has been told which node answers: no other is tried from then on."""
        self.facts: NodeFacts | None = None
        self.stream: OutboundStream | None = None
        self.head: Head | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the caller is told of where the answer comes from."""
        if self.facts is None:
            return []
        found = [(b"x-porten-node", self.facts.node_id.encode())]
        if self.facts.region is not None:
            found.append((b"x-porten-region", self.facts.region.encode()))
        digest = self._digest(self.facts.node_id)
        return [*found, (b"x-porten-model-digest", digest.encode())] if digest else found

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
                admitted, facts = await self._choose()
            session = self._parts.registry.session(facts.node_id)
            if session is None:
                raise RuntimeError("the registry offered a node without a session")
            self._tried.add(facts.node_id)
            self.facts, self.head = facts, None
            self._held.enter_context(self._parts.registry.occupy(facts.node_id, self._call.model))
            self._exchange = self._held.enter_context(
                self._span.child("porten.tunnel", node_id=facts.node_id, model=self._call.model)
            )
            try:
                self.stream = await session.open(self._request(admitted, facts, session.generation))
            except (SessionClosed, TooManyStreams) as error:
                self._failure = refusals.from_opening(error)
                self._held.close()
                if self.pinned:
                    raise self._failure from error
                continue
            return self.stream

    async def _choose(self) -> tuple[Admitted, NodeFacts]:
        """Ask the router until it names a node, nothing is worth waiting for, or the queue's time is up."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._parts.queue_timeout_s
        while True:
            admitted = await self._parts.admission.confirm(self._call.admitted)
            chosen = self._select(admitted)
            if isinstance(chosen, Selection):
                self._check_offer(chosen.node_id)
                return admitted, chosen.candidate.facts
            if self._failure is not None or not chosen.passing:
                raise self._failure or self._refused(chosen, admitted)
            try:
                async with asyncio.timeout_at(give_up):
                    await self._parts.registry.room()
            except TimeoutError:
                raise self._refused(chosen, admitted) from None

    def _select(self, admitted: Admitted) -> Selection | Refusal:
        registry, call = self._parts.registry, self._call
        return select_replica(
            admitted.policy,
            call.model,
            registry.candidates(call.model),
            registry.facts.regions,
            call.narrowing,
            exclude=frozenset(self._tried),
            tie_break=call.request_id,
        )

    def _check_offer(self, node_id: str) -> None:
        """What the catalog does not know of a model, the node that offers it does."""
        offer = self._parts.registry.model_status(node_id, self._call.model)
        if offer is not None and self._call.model not in self._parts.catalog:
            _check_capabilities(self._call, offer.capabilities)

    def _request(self, admitted: Admitted, facts: NodeFacts, generation: int) -> Open:
        call, now = self._call, int(self._parts.clock())
        # A node takes a ticket once; each try is a request of its own to it.
        uid = call.request_id if len(self._tried) == 1 else f"{call.request_id}.{len(self._tried)}"
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
        )
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
            ticket=issue_ticket(self._parts.hub_key, ticket),
            content_length=len(call.body),
        )

    async def _first_bytes(self, stream: OutboundStream) -> bytes | None:
        await stream.send(self._call.body, fin=True)
        head = await stream.head()
        if head.status >= 400:
            raise await self._read_error(stream, head)
        check_success(head)
        self.head = head
        first = await stream.receive()
        self._first_byte_at = asyncio.get_running_loop().time()
        return first

    async def _read_error(self, stream: OutboundStream, head: Head) -> RequestFailed:
        body = bytearray()
        while len(body) < MAX_ERROR_BYTES and (piece := await stream.receive()) is not None:
            body += piece
        return self._parts.read_error(head.status, bytes(body), header(head, "retry-after"))

    def _refused(self, refusal: Refusal, admitted: Admitted) -> RequestFailed:
        model = self._call.model
        if refusal.code is RefusalCode.OVERLOADED:
            return refusals.overloaded()
        if model not in self._parts.catalog and not self._is_offered(admitted):
            return refusals.model_not_found(model)
        return refusals.no_available_node(model, refusal)

    def _is_offered(self, admitted: Admitted) -> bool:
        registry = self._parts.registry
        return any(
            candidate.model_state is not None
            and permits(admitted.policy, candidate.facts, registry.facts.regions).permitted
            for candidate in registry.candidates(self._call.model)
        )

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
        self._held.close()

    def _record(self, outcome: str) -> None:
        if self._recorded or self.facts is None:
            return
        self._recorded = True
        record = self._usage(self.facts, outcome)
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
            completion_tokens=usage.completion_tokens if usage else 0,
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


def _check_capabilities(call: Call, capabilities: Iterable[str]) -> None:
    """Refuse what the model cannot do, before anybody is asked for capacity."""
    known = frozenset(capabilities)
    if call.capability not in known:
        raise RequestFailed(
            "unsupported_parameter", f"The model does not do {call.capability}.", param="model"
        )
    if call.needs_tools and "tools" not in known:
        raise RequestFailed("unsupported_parameter", "The model does not take tools.", param="tools")
