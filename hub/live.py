"""One connected node: its session, what it last reported, and what of it counts for a model.

Owns how a report becomes a candidate. Must not know other nodes, who asks, or why a session comes or goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hub.policy import NodeFacts
from hub.progress import Loads
from hub.router import Candidate, ModelState
from tunnel.messages import DeviceStatus, ModelStatus, Notice, ReplicaStatus, Status
from tunnel.session import HubSession

_STATES = {state.value: state for state in ModelState}

NO_REQUESTS: Mapping[str, int] = Counter()
"""Of a node on which this Hub has nothing open."""


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
class Live:
    """The session that a node's new requests go to, with its last report sorted by model.

    Attributes:
        signed: what the credential says that it was welcomed with.
        in_flight_then: requests that this Hub had open when the report came, by model.
        outdated: it was asked to dial again.
        told_draining: what the node was last told; until it is told, a node takes itself to be on no drain.
    """

    session: HubSession
    signed: NodeFacts | None
    status: Status | None = None
    models: dict[str, ModelStatus] = field(default_factory=dict)
    replicas: dict[str, list[ReplicaStatus]] = field(default_factory=dict)
    in_flight_then: Mapping[str, int] = field(default_factory=dict)
    outdated: bool = False
    told_draining: bool = False
    loads: Loads = field(default_factory=Loads)
    _agreed: NodeFacts | None = None
    _loaded: dict[str, Candidate] = field(default_factory=dict)

    def report(self, status: Status, in_flight: Mapping[str, int], now: float) -> set[str]:
        """Take a report; returns the models of which it says anything new."""
        before, had, was_accepting = self.models, self.replicas, self.accepting
        self.status = status
        self._loaded.clear()
        self.in_flight_then = dict(in_flight)
        self.loads.report(status.models, now)
        self.models = {model.model: model for model in status.models}
        self.replicas = {}
        for replica in status.replicas:
            self.replicas.setdefault(replica.model, []).append(replica)
        if self.accepting is not was_accepting:
            return {*before, *self.models}
        told = {name for name, model in self.models.items() if before.get(name) != model}
        return told.union(before.keys() - self.models.keys(), had, self.replicas)

    @property
    def accepting(self) -> bool:
        """Whether it takes new work."""
        return self.status is not None and self.status.accepting and not self.session.draining

    def tell(self, facts: NodeFacts) -> None:
        """Let the node's owner see that it is on drain, or that it no longer is. It decides nothing there."""
        draining = facts.draining is not False
        if draining is not self.told_draining:
            self.told_draining = draining
            self.session.notice(Notice(draining=draining))

    def forget(self, model: str) -> None:
        """The requests on it for a model have changed: what was put together for it is out of date."""
        self._loaded.pop(model, None)

    def candidate(
        self, facts: NodeFacts, model: str, in_flight: int, slots_of: Callable[[str], int]
    ) -> Candidate:
        """The node for one model. For those it has loaded it is put together once for each change.

        Args:
            facts: what is known of it now.
            model: the model.
            in_flight: requests of this Hub on it.
            slots_of: how many a replica answers at once, where the node has not said so.
        """
        known = self._loaded.get(model)
        if known is not None and known.facts is facts and known.accepting is self.accepting:
            return known
        found = self._candidate(facts, model, in_flight, slots_of)
        if model in self.replicas and found.reported:
            self._loaded[model] = found
        return found

    def _candidate(
        self, facts: NodeFacts, model: str, in_flight: int, slots_of: Callable[[str], int]
    ) -> Candidate:
        if not self.agrees(facts):
            return Candidate(facts, None, reported=False)  # it dials again, for a credential that says this
        offer = self.models.get(model)
        replicas = self.replicas.get(model, ())
        return Candidate(
            facts,
            None if offer is None else _STATES[offer.state],
            fits=offer is not None and offer.fits,
            in_flight=in_flight,
            running=sum(replica.running for replica in replicas),
            waiting=sum(replica.waiting for replica in replicas),
            in_flight_then=self.in_flight_then.get(model, 0),
            slots=sum(replica.slots for replica in replicas) or slots_of(model),
            accepting=self.accepting,
            reported=self.status is not None,
            tokens_per_second=_fastest(replicas),
        )

    def agrees(self, facts: NodeFacts) -> bool:
        """Whether the node was welcomed with a credential that says these facts."""
        if facts is not self._agreed:
            if self.signed is None or _credential(self.signed) != _credential(facts):
                return False
            self._agreed = facts
        return True

    def show(self, in_flight: int) -> LiveNode:
        """What the portal shows."""
        session, status = self.session, self.status
        return LiveNode(
            node_id=session.node_id,
            generation=session.generation,
            connected_at=session.connected_at,
            remote_address=session.remote_address,
            agent=status.agent if status else session.agent,
            accepting=self.accepting,
            draining=session.draining,
            reason=status.reason if status else None,
            in_flight=in_flight,
            devices=status.devices if status else (),
            replicas=status.replicas if status else (),
            models=status.models if status else (),
            reported=status is not None,
        )


def _fastest(replicas: Iterable[ReplicaStatus]) -> float | None:
    return max((replica.tokens_per_second for replica in replicas), default=0) or None


def _credential(facts: NodeFacts) -> tuple[object, ...]:
    kind = facts.sharing.kind if facts.sharing is not None else None
    return (facts.owner_id, facts.region, facts.trust, kind)
