"""One request's way to a node and back: choose, open, and keep account of it.

Owns the tries, the ticket, the receipt and the usage record of a request. Must not know HTTP servers: bytes
go in, bytes come out, failures are `RequestFailed`. Who may serve is judged by the router at each choice
anew; between its answer and the opening of the stream nothing is awaited.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import refusals
from hub.admission import Admission, Admitted, check_model
from hub.affinity import conversation_key
from hub.choosing import Asked
from hub.demand import Demand
from hub.errors import RequestFailed
from hub.heads import DIGEST_HEADER, check_success, digest_of, header
from hub.identity import derived_secret
from hub.policy import Narrowing, NodeFacts
from hub.queueing import WaitingRoom
from hub.receipts import ReceiptCheck
from hub.registry import Occupied, Registry
from hub.router import Candidate, RefusalCode, Selection
from hub.storage.records import ApiKey, UsageRecord
from models.catalog import Catalog
from tunnel.errors import ReceiptInvalid, ResetCode, SessionClosed, StreamReset, TooManyStreams
from tunnel.identity import Ticket, issue_ticket
from tunnel.messages import Head, Open
from tunnel.receipts import RECEIPT_HEADER
from tunnel.session import OutboundStream

log = logging.getLogger(__name__)

MAX_TRIES = 3
MAX_PASSED_OVER = 64
"""Nodes looked at for one request whose engines lack the endpoint."""
TICKET_LIFETIME_S = 60
MAX_ERROR_BYTES = 64 * 1024
"""Bytes of a node's error response that are read; more of it tells nobody anything."""

ErrorReader = Callable[[int, bytes, str | None], RequestFailed]
"""Reads the error response of a node: status, body, ``Retry-After``."""


RefusalLog = Callable[[str, ApiKey, str | None, str, Mapping[str, int]], None]
"""Told of each refusal by policy: request, key, model (``None`` where it is none that the Hub knows), error
code, and the caller's own nodes by gate."""


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
        needs_vision: the body shows pictures.
        offered_as: the word by which a node says that its engine has the endpoint; ``None`` where every does.
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
    needs_vision: bool = False
    offered_as: str | None = None


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
            max_waiting: requests that may wait for one model at once.
            demand: told of every request that needs a place, and of every answer's length.
        """
        self.registry = registry
        self.admission = admission
        self.catalog = catalog
        self.usage = usage
        self.hub_key = hub_key
        self.receipts = ReceiptCheck(hub_key.public_key())
        self.clock = clock
        self.queue_timeout_s = queue_timeout_s
        self.waiting = WaitingRoom(registry, limit=max_waiting)
        self.demand = demand or Demand()
        self.ring_secret = derived_secret(hub_key, "conversations")
        self.read_error = read_error
        self.on_record = on_record
        self.on_refused = on_refused

    def begin(self, call: Call) -> Dispatch:
        """Take a request on.

        Raises:
            RequestFailed: ``unsupported_parameter``: the model cannot do what is asked.
        """
        spec = self.catalog.get(call.model)
        if spec is not None:
            _check_capabilities(call, spec.capabilities)
        return Dispatch(self, call)


class Dispatch:
    """One request. `connect`, then read `stream` until it is finished, then `finish`; `close` in any case."""

    def __init__(self, dispatcher: Dispatcher, call: Call) -> None:
        self._parts = dispatcher
        self._call = call
        self._tried: set[str] = set()
        self._mute: set[str] = set()
        """Nodes that offer the model on engines without the endpoint."""
        self._failure: RequestFailed | None = None
        self._held = ExitStack()
        self._began = asyncio.get_running_loop().time()
        self._first_byte_at: float | None = None
        self._recorded = False
        self._ticket: Ticket | None = None
        self._features: tuple[str, ...] = ()
        self.events = 0
        """Events of a stream that have come: what was generated, where nobody says how much it was."""
        self.used = 0
        """Tokens of its record, prompt and completion; 0 until there is one."""
        admitted = call.admitted
        self._affinity = conversation_key(
            dispatcher.ring_secret, admitted.key.organisation_id, call.model, call.body
        )
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
            admitted, facts = await self._choose()
            session = self._parts.registry.session(facts.node_id)
            if session is None:
                raise RuntimeError("the registry offered a node without a session")
            self._tried.add(facts.node_id)
            self.facts, self.head, self._features = facts, None, session.features
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
        """Ask until a node is named, nothing is worth waiting for, or the queue's time is up.

        The place on the node is taken when this returns; who fails or is cancelled gives it back in `_leave`.
        """
        parts, loop = self._parts, asyncio.get_running_loop()
        admitted = await self._confirmed(self._call.admitted)
        asked = self._asked(admitted)
        chosen = self._take(asked)
        parts.demand.asked(asked, admitted, chosen, loop.time())
        give_up = loop.time() + parts.queue_timeout_s
        while chosen is None:
            asked = self._asked(admitted)  # without the nodes that were just passed over
            if self._failure is not None or not parts.registry.chooser.is_passing(asked):
                raise self._failure or self._refused(asked)
            place = await self._wait(asked, admitted, give_up)
            admitted = await self._confirmed(admitted)
            asked = self._asked(admitted)
            chosen = self._take(asked, place)
            if chosen is None and loop.time() >= give_up:
                raise self._refused(asked)
        return admitted, chosen.facts

    async def _confirmed(self, admitted: Admitted) -> Admitted:
        """The caller as of now. The key's own list of models may have changed while this one waited."""
        confirmed = await self._parts.admission.confirm(admitted)
        check_model(confirmed, self._call.model)
        return confirmed

    async def _wait(self, asked: Asked, admitted: Admitted, give_up: float) -> Occupied | None:
        """Wait for a place; none where it is time to look again, be it for the last time."""
        try:
            async with asyncio.timeout_at(give_up):
                place = await self._parts.waiting.wait(asked, admitted.key.organisation_id)
        except TimeoutError:
            return None
        return None if place is None else self._held.enter_context(place)

    def _take(self, asked: Asked, place: Occupied | None = None) -> Candidate | None:
        """Take a place on the node that is chosen: the one that came, if that may still be used."""
        registry = self._parts.registry
        if place is not None:
            candidate = registry.chooser.is_still_able(asked, place.node_id)
            if candidate is not None and not self._is_mute(place.node_id):
                self._check_offer(place.node_id)
                return candidate
            self._held.close()  # for the next in line
        while (found := registry.chooser.find(asked)) is not None and self._is_mute(found.node_id):
            asked = replace(asked, exclude=frozenset(self._tried | self._mute))
        if found is None:
            return None
        self._check_offer(found.node_id)
        self._held.enter_context(registry.occupy(found.node_id, asked.model))
        return found.candidate

    def _asked(self, admitted: Admitted) -> Asked:
        call = self._call
        return Asked(
            policy=admitted.policy,
            model=call.model,
            narrowing=call.narrowing,
            exclude=frozenset(self._tried | self._mute),
            tie_break=call.request_id,
            affinity=self._affinity,
        )

    def _is_mute(self, node_id: str) -> bool:
        """Whether a node's engine lacks the endpoint: it is passed over, and not chosen again."""
        word, offer = self._call.offered_as, self._parts.registry.model_status(node_id, self._call.model)
        if word is None or offer is None or word in offer.capabilities:
            return False
        if len(self._mute) >= MAX_PASSED_OVER:
            raise refusals.endpoint_not_offered(self._call.path)
        self._mute.add(node_id)
        return True

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

    def _refused(self, asked: Asked) -> RequestFailed:
        chooser = self._parts.registry.chooser
        refusal = chooser.refusal(asked)
        if isinstance(refusal, Selection):
            raise RuntimeError("a node was found that the index does not have")  # noqa: TRY004
        if refusal.code is RefusalCode.OVERLOADED:
            return refusals.overloaded()
        if self._mute:
            return refusals.endpoint_not_offered(self._call.path)
        if asked.model not in self._parts.catalog and not chooser.is_offered(asked):
            known, failure = None, refusals.model_not_found(asked.model)
        else:
            known, failure = asked.model, refusals.no_available_node(asked.model, refusal)
        counts = {reason.value: count for reason, count in refusal.counts.items()}
        self._parts.on_refused(self._call.request_id, self._call.admitted.key, known, failure.code, counts)
        return failure

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
        self.used = record.prompt_tokens + record.completion_tokens
        self._parts.demand.answered(record.model, record.completion_tokens)
        self._parts.usage.record(record)
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


def _check_capabilities(call: Call, capabilities: Iterable[str]) -> None:
    """Refuse what the model cannot do, before anybody is asked for capacity."""
    known = frozenset(capabilities)
    if call.capability not in known:
        raise RequestFailed(
            "unsupported_parameter", f"The model does not do {call.capability}.", param="model"
        )
    if call.needs_tools and "tools" not in known:
        raise RequestFailed("unsupported_parameter", "The model does not take tools.", param="tools")
    if call.needs_vision and "vision" not in known:
        raise RequestFailed("unsupported_parameter", "The model does not take pictures.", param="messages")
