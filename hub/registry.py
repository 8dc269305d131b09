"""Which nodes are here: the live sessions, one a node.

Owns the sessions, what their nodes last reported, and the count of requests that this Hub has open on each.
Must not know HTTP, bodies or who asks: it gives candidates, the router chooses among them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field

from hub.facts import Background, FactSource, KnownFacts
from hub.policy import NodeFacts
from hub.progress import Loads
from hub.router import Candidate, ModelState
from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus, Status
from tunnel.session import HubSession

REPLACED_DRAIN_S = 600.0
"""Seconds a session that another follows may go on answering what it began."""
RETURN_S = 30.0
"""Seconds in which a node that was asked to dial again is expected back."""


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A connected node as the portal shows it.

    ``connected_at`` is UTC seconds since the epoch; ``reported`` says whether it has told how it is.
    """

    node_id: str
    generation: int
    connected_at: float
    remote_address: str
    agent: str
    accepting: bool
    draining: bool
    reason: str | None
    in_flight: int
    devices: tuple[DeviceStatus, ...]
    replicas: tuple[ReplicaStatus, ...]
    models: tuple[ModelStatus, ...]
    reported: bool = True


@dataclass(slots=True)
class _Live:
    """The session that a node's new requests go to, with its last report sorted by model."""

    session: HubSession
    signed: NodeFacts | None
    status: Status | None = None
    models: dict[str, ModelStatus] = field(default_factory=dict)
    replicas: dict[str, list[ReplicaStatus]] = field(default_factory=dict)
    outdated: bool = False
    loads: Loads = field(default_factory=Loads)

    def report(self, status: Status, now: float) -> None:
        self.status = status
        self.loads.report(status.models, now)
        self.models = {model.model: model for model in status.models}
        self.replicas = {}
        for replica in status.replicas:
            self.replicas.setdefault(replica.model, []).append(replica)

    @property
    def accepting(self) -> bool:
        return self.status is not None and self.status.accepting and not self.session.draining


class Registry:
    """The live nodes. Everything in it is synchronous: a decision sees one state of the world."""

    def __init__(self, source: FactSource, *, slots_of: Callable[[str], int] = lambda _model: 1) -> None:
        """Begin empty.

        Args:
            source: what storage says.
            slots_of: how many requests a model's replica answers at once, where no node has said so yet.
        """
        self.facts = KnownFacts(source, on_read=self._enforce, on_revoked=self._revoked)
        self._slots_of = slots_of
        self._live: dict[str, _Live] = {}
        self._sessions: dict[str, list[HubSession]] = {}
        self._signed: dict[str, tuple[int, NodeFacts]] = {}
        self._in_flight: dict[str, Counter[str]] = {}
        self._expected: dict[str, float] = {}
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._background = Background()

    # --- sessions: the tunnel server's callbacks ---------------------------------------------------------

    def sign(self, generation: int, facts: NodeFacts) -> None:
        """Remember what the credential says that a session of this generation is welcomed with."""
        self._signed[facts.node_id] = (generation, facts)

    def connected(self, session: HubSession) -> None:
        """A node was welcomed. The newest generation wins, whatever the order of arrival."""
        node_id = session.node_id
        self._sessions.setdefault(node_id, []).append(session)
        current = self._live.get(node_id)
        if current is not None and current.session.generation > session.generation:
            self._background.spawn(session.close("superseded"))
            return
        live = _Live(session, self._signed_for(session))
        self._live[node_id] = live
        if current is not None:
            self._succeed(current, live)
        if session.status is not None:
            live.report(session.status, _now())
        if live.status is not None:
            self._expected.pop(node_id, None)
        if self.facts.get(node_id) is not None:
            self._enforce([node_id])
        else:
            self.facts.want(node_id)

    def _signed_for(self, session: HubSession) -> NodeFacts | None:
        generation, facts = self._signed.get(session.node_id, (None, None))
        return facts if generation == session.generation else None

    def _succeed(self, old: _Live, new: _Live) -> None:
        """The same daemon's last report holds until its next; a session that drains finishes its streams."""
        same = old.session.instance_id == new.session.instance_id
        if old.status is not None and same:
            new.report(old.status, _now())
        if old.session.draining or old.outdated:
            return
        if same and new.session.replaces == old.session.generation:
            self._background.spawn(
                old.session.goaway("replaced", reconnect_in=0.0, deadline=REPLACED_DRAIN_S)
            )
            return
        self._background.spawn(old.session.close("superseded"))

    def reported(self, session: HubSession, status: Status) -> None:
        """A node said how it is. A session that was superseded is not listened to."""
        live = self._live.get(session.node_id)
        if live is not None and live.session is session:
            live.report(status, _now())
            if not live.outdated:
                self._expected.pop(session.node_id, None)
            self._wake_all()

    def disconnected(self, session: HubSession) -> None:
        """A session ended; only the node's current one takes the node with it."""
        node_id = session.node_id
        remaining = [other for other in self._sessions.get(node_id, ()) if other is not session]
        if remaining:
            self._sessions[node_id] = remaining
        else:
            self._sessions.pop(node_id, None)
        live = self._live.get(node_id)
        if live is not None and live.session is session:
            del self._live[node_id]

    def _enforce(self, node_ids: Sequence[str] | None) -> None:
        """Make sessions obey what is known now."""
        for node_id in list(self._sessions) if node_ids is None else node_ids:
            facts = self.facts.get(node_id)
            if facts is None or facts.revoked:
                self._revoked(node_id)
            elif (live := self._live.get(node_id)) and not _same_credential(live.signed, facts):
                self._replace(live)
        self._wake_all()

    def _replace(self, live: _Live) -> None:
        """Its credential is out of date: the node dials again and is welcomed with the current one."""
        if not live.outdated:
            live.outdated = True
            self._expected[live.session.node_id] = _now() + RETURN_S
            self._background.spawn(
                live.session.goaway("credential", reconnect_in=0.0, deadline=REPLACED_DRAIN_S)
            )

    def quarantine(self, node_id: str) -> None:
        """End a node's sessions: two machines use its credential."""
        self._end(node_id, "quarantined")

    def _revoked(self, node_id: str) -> None:
        self._end(node_id, "revoked")

    def _end(self, node_id: str, reason: str) -> None:
        for session in self._sessions.get(node_id, ()):
            self._background.spawn(session.close(reason))
        self._live.pop(node_id, None)
        self._expected.pop(node_id, None)

    # --- choosing ----------------------------------------------------------------------------------------

    def candidates(self, model: str) -> Iterator[Candidate]:
        """Every node that is known, as it is now; those without a session are there to be counted."""
        for facts in self.facts:
            yield self._candidate(facts, self._live.get(facts.node_id), model)

    def connected_nodes(self) -> Iterator[NodeFacts]:
        """Every node that is known and has a session."""
        return (facts for facts in self.facts if facts.node_id in self._live)

    def candidates_on(self, facts: NodeFacts) -> Iterator[tuple[str, Candidate]]:
        """One node for each of the models that it named last."""
        live = self._live.get(facts.node_id)
        for model in () if live is None else live.models:
            yield model, self._candidate(facts, live, model)

    def _candidate(self, facts: NodeFacts, live: _Live | None, model: str) -> Candidate:
        if live is None:
            return Candidate(facts, None, online=False)
        if not _same_credential(live.signed, facts):
            return Candidate(facts, None, reported=False)  # it dials again, for a credential that says this
        offer = live.models.get(model)
        replicas = live.replicas.get(model, ())
        return Candidate(
            facts,
            None if offer is None else ModelState(offer.state),
            fits=offer is not None and offer.fits,
            in_flight=self._in_flight.get(facts.node_id, _NOTHING)[model],
            running=sum(replica.running for replica in replicas),
            waiting=sum(replica.waiting for replica in replicas),
            slots=sum(replica.slots for replica in replicas) or self._slots_of(model),
            accepting=live.accepting,
            reported=live.status is not None,
            tokens_per_second=max((replica.tokens_per_second for replica in replicas), default=0) or None,
        )

    def session(self, node_id: str) -> HubSession | None:
        """The session that a node's new requests go to."""
        live = self._live.get(node_id)
        return None if live is None else live.session

    def model_status(self, node_id: str, model: str) -> ModelStatus | None:
        """What a connected node last said of a model."""
        live = self._live.get(node_id)
        return None if live is None else live.models.get(model)

    def eta_s(self, node_id: str, model: str) -> float | None:
        """Seconds until a node has finished the present phase of loading a model, if it can be told."""
        live = self._live.get(node_id)
        return None if live is None else live.loads.eta_s(model)

    @contextmanager
    def occupy(self, node_id: str, model: str) -> Iterator[None]:
        """Count a request on a node for as long as it lasts."""
        counts = self._in_flight.setdefault(node_id, Counter())
        counts[model] += 1
        try:
            yield
        finally:
            counts[model] -= 1
            if not counts[model]:
                del counts[model]
            if not counts:
                self._in_flight.pop(node_id, None)
            self._wake_one()

    async def room(self) -> None:
        """Wait until something has changed that may have made room; first come, first woken."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._wake_one()  # the call was for somebody who still waits
            raise
        finally:
            if future in self._waiters:
                self._waiters.remove(future)

    def _wake_one(self) -> None:
        while self._waiters:
            future = self._waiters.popleft()
            if not future.done():
                future.set_result(None)
                return

    def _wake_all(self) -> None:
        for _ in range(len(self._waiters)):
            self._wake_one()

    # --- showing -----------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, LiveNode]:
        """Every connected node by its id."""
        return {node_id: self._show(node_id, live) for node_id, live in self._live.items()}

    def shown(self, node_ids: Iterable[str]) -> dict[str, LiveNode]:
        """Those of the nodes that are connected, by id: a page of them."""
        live = self._live
        return {node_id: self._show(node_id, live[node_id]) for node_id in node_ids if node_id in live}

    def connected_ids(self) -> AbstractSet[str]:
        """The ids of all connected nodes."""
        return self._live.keys()

    def ready_models(self, node_ids: Iterable[str]) -> set[str]:
        """The models that are loaded on at least one of these nodes."""
        live = (self._live[node_id] for node_id in node_ids if node_id in self._live)
        return {name for each in live for name, model in each.models.items() if model.state == "ready"}

    def expected(self) -> frozenset[str]:
        """Nodes that were asked to dial again, for a new credential, and are due back any moment."""
        now = _now()
        self._expected = {node_id: until for node_id, until in self._expected.items() if now < until}
        return frozenset(self._expected)

    def _show(self, node_id: str, live: _Live) -> LiveNode:
        session, status = live.session, live.status
        return LiveNode(
            node_id=node_id,
            generation=session.generation,
            connected_at=session.connected_at,
            remote_address=session.remote_address,
            agent=status.agent if status else session.agent,
            accepting=live.accepting,
            draining=session.draining,
            reason=status.reason if status else None,
            in_flight=self._in_flight.get(node_id, _NOTHING).total(),
            devices=status.devices if status else (),
            replicas=status.replicas if status else (),
            models=status.models if status else (),
            reported=status is not None,
        )

    async def close(self) -> None:
        """End the background work; sessions are the tunnel server's to end."""
        await self.facts.close()
        await self._background.close()


_NOTHING: Counter[str] = Counter()


def _now() -> float:
    return asyncio.get_running_loop().time()


def _same_credential(signed: NodeFacts | None, facts: NodeFacts) -> bool:
    """Whether a node welcomed with one holds a credential that says the other."""
    return signed is not None and _credential(signed) == _credential(facts)


def _credential(facts: NodeFacts) -> tuple[object, ...]:
    kind = facts.sharing.kind if facts.sharing is not None else None
    return (facts.owner_id, facts.region, facts.trust, kind)
