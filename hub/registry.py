"""Which nodes are here: the live sessions, one a node.

Owns the sessions, what their nodes last reported, and the count of requests that this Hub has open on each;
and keeps the index of offers in step with every change of these. Must not know HTTP, bodies or who asks: it
gives candidates, the router chooses among them.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Protocol, Self

from hub.choosing import Chooser
from hub.facts import Background, FactSource, KnownFacts
from hub.live import NO_REQUESTS, Live, LiveNode
from hub.offers import OfferIndex
from hub.policy import NodeFacts, RegionTree
from hub.router import Candidate, grade
from tunnel.messages import ModelStatus, Status
from tunnel.session import HubSession

__all__ = ["LiveNode", "Occupied", "Registry", "Watcher"]

REPLACED_DRAIN_S = 600.0
"""Seconds a session that another follows may go on answering what it began."""
RETURN_S = 30.0
"""Seconds in which a node that was asked to dial again is expected back."""


class Watcher(Protocol):
    """Who waits for nodes that can take more."""

    def room(self, node_id: str, model: str) -> None:
        """A node may have room for a model now, or none any more."""
        ...

    def changed(self) -> None:
        """Nodes have come or gone, or others may use them: waiting may be over, or in vain."""
        ...


class Occupied:
    """One request's place on a node, counted from the beginning until `release`; a context manager."""

    __slots__ = ("_registry", "held", "model", "node_id")

    def __init__(self, registry: Registry, node_id: str, model: str) -> None:
        self._registry = registry
        self.node_id = node_id
        self.model = model
        self.held = True

    def release(self) -> None:
        """Count it no longer; a second time does nothing."""
        if self.held:
            self.held = False
            self._registry.leave(self.node_id, self.model)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class Registry:
    """The live nodes. Everything in it is synchronous: a decision sees one state of the world."""

    def __init__(self, source: FactSource, *, slots_of: Callable[[str], int] = lambda _model: 1) -> None:
        """Begin empty.

        Args:
            source: what storage says.
            slots_of: how many requests a model's replica answers at once, where no node has said so yet.

        Attributes:
            chooser: finds the node for a request.
            watcher: told of room; set by who keeps the queue.
        """
        self.facts = KnownFacts(
            source, on_read=self._enforce, on_revoked=self._revoked, on_unknown=self._unknown
        )
        self._index = OfferIndex()
        self.chooser = Chooser(self._index, self)
        self.watcher: Watcher | None = None
        self._slots_of = slots_of
        self._live: dict[str, Live] = {}
        self._sessions: dict[str, list[HubSession]] = {}
        self._signed: dict[str, tuple[int, NodeFacts]] = {}
        self._in_flight: dict[str, Counter[str]] = {}
        self._expected: dict[str, float] = {}
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
        live = Live(session, self._signed_for(session))
        self._live[node_id] = live
        if current is not None:
            self._succeed(current, live)
        if session.status is not None:
            live.report(session.status, self._counts(node_id), _now())
        if live.status is not None:
            self._expected.pop(node_id, None)
        if self.facts.get(node_id) is not None:
            self._enforce([node_id])
        else:
            self.facts.want(node_id)

    def _signed_for(self, session: HubSession) -> NodeFacts | None:
        generation, facts = self._signed.get(session.node_id, (None, None))
        return facts if generation == session.generation else None

    def _succeed(self, old: Live, new: Live) -> None:
        """The same daemon's last report holds until its next; a session that drains finishes its streams."""
        same = old.session.instance_id == new.session.instance_id
        if old.status is not None and same:
            new.report(old.status, old.in_flight_then, _now())
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
        node_id = session.node_id
        live = self._live.get(node_id)
        if live is None or live.session is not session:
            return
        was_silent = live.status is None
        news = live.report(status, self._counts(node_id), _now())
        if not live.outdated:
            self._expected.pop(node_id, None)
        if was_silent:
            self._file(node_id)
            return
        for model in news:
            self.refile(node_id, model)
        for model in news:
            self._tell_of_room(node_id, model)

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
            self._file(node_id)

    def _enforce(self, node_ids: Sequence[str] | None) -> None:
        """Make sessions obey what is known now; those of nodes that are being read wait for what is read."""
        for node_id in self._read_sessions() if node_ids is None else node_ids:
            facts = self.facts.get(node_id)
            if facts is None or facts.revoked:
                self._revoked(node_id)
            elif (live := self._live.get(node_id)) is not None:
                live.tell(facts)
                if not live.agrees(facts):
                    self._replace(live)
        self._file(*self._misfiled() if node_ids is None else node_ids)

    def _read_sessions(self) -> list[str]:
        return [node_id for node_id in self._sessions if not self.facts.is_unread(node_id)]

    def _replace(self, live: Live) -> None:
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
        self._file(node_id)

    def _unknown(self, node_ids: Sequence[str] | None) -> None:
        """Facts are being read again: until then these nodes serve nobody."""
        self._file(*self._live if node_ids is None else node_ids)

    # --- the index: every change above ends in one of these ------------------------------------------------

    def _file(self, *node_ids: str) -> None:
        """Let nodes stand where all that is known of them puts them now."""
        for node_id in node_ids:
            facts, live = self.facts.get(node_id), self._live.get(node_id)
            if facts is None or live is None:
                self._index.remove(node_id)
            elif live.status is None or not live.agrees(facts):
                self._index.file_pending(facts)
            else:
                places = ((model, grade(self._candidate(facts, live, model))) for model in live.models)
                self._index.file(facts, {model: place for model, place in places if place is not None})
        if self.watcher is not None:
            self.watcher.changed()

    def _misfiled(self) -> list[str]:
        """The connected nodes whose facts are not those by which they stand where they do."""
        known = ((node_id, self.facts.get(node_id)) for node_id in self._live)
        return [node_id for node_id, facts in known if facts is None or not self._index.is_filed_by(facts)]

    def refile(self, node_id: str, model: str) -> None:
        """Let a node stand where it belongs for one model."""
        facts, live = self.facts.get(node_id), self._live.get(node_id)
        if live is not None:
            live.forget(model)
        if facts is None or live is None or live.status is None or not live.agrees(facts):
            return  # it stands nowhere, or apart from all models
        self._index.grade(node_id, model, grade(self._candidate(facts, live, model)))

    def _tell_of_room(self, node_id: str, model: str) -> None:
        if self.watcher is not None:
            self.watcher.room(node_id, model)

    # --- choosing ----------------------------------------------------------------------------------------

    @property
    def regions(self) -> RegionTree:
        """The operator's regions, as they are known now."""
        return self.facts.regions

    @property
    def is_reading(self) -> bool:
        """Whether facts that were changed are being read, and nodes unknown that long."""
        return self.facts.is_reading

    def candidate(self, node_id: str, model: str) -> Candidate | None:
        """One node as it is now; ``None`` where nothing is known of it."""
        facts = self.facts.get(node_id)
        return None if facts is None else self._candidate(facts, self._live.get(node_id), model)

    def own(self, organisation_id: str) -> Iterable[str]:
        """The nodes of an organisation, connected or not."""
        return self.facts.owned_by(organisation_id)

    def candidates(self, model: str) -> Iterator[Candidate]:
        """Every node that is known, as it is now; those without a session are there to be counted."""
        for facts in self.facts:
            yield self._candidate(facts, self._live.get(facts.node_id), model)

    def _candidate(self, facts: NodeFacts, live: Live | None, model: str) -> Candidate:
        if live is None:
            return Candidate(facts, None, online=False)
        in_flight = self._counts(facts.node_id).get(model, 0)
        return live.candidate(facts, model, in_flight, self._slots_of)

    def _counts(self, node_id: str) -> Mapping[str, int]:
        return self._in_flight.get(node_id, NO_REQUESTS)

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

    def occupy(self, node_id: str, model: str) -> Occupied:
        """Count a request on a node until what this returns is released."""
        self._in_flight.setdefault(node_id, Counter())[model] += 1
        self.refile(node_id, model)
        return Occupied(self, node_id, model)

    def leave(self, node_id: str, model: str) -> None:
        """A request has left a node: what `Occupied.release` calls."""
        counts = self._in_flight[node_id]
        counts[model] -= 1
        if not counts[model]:
            del counts[model]
        if not counts:
            del self._in_flight[node_id]
        self.refile(node_id, model)
        self._tell_of_room(node_id, model)

    # --- showing -----------------------------------------------------------------------------------------

    def snapshot(self) -> Mapping[str, LiveNode]:
        """Every connected node by its id."""
        return self.shown(self._live)

    def shown(self, node_ids: Iterable[str]) -> dict[str, LiveNode]:
        """Those of the nodes that are connected, by id: a page of them."""
        live = self._live
        return {
            node_id: live[node_id].show(sum(self._counts(node_id).values()))
            for node_id in node_ids
            if node_id in live
        }

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

    async def close(self) -> None:
        """End the background work; sessions are the tunnel server's to end."""
        await self.facts.close()
        await self._background.close()


def _now() -> float:
    return asyncio.get_running_loop().time()
