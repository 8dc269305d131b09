"""Which node serves a request, among those that may.

Owns selection: readiness, the estimated wait, affinity and the tie-break, and the reasons it gives when
nothing is left. It must not know storage, sessions or the clock, and it judges no access itself: it asks
:func:`hub.policy.permits` for every candidate, every time, and never returns one that was refused.

How able candidates are ordered:

1. readiness: ready before warming before cold;
2. the estimated wait: none while a slot is free, else the rounds of answers ahead by the measured speed;
3. how crowded the node is for its speed: the shortest expected delay of the heterogeneous case (Weinrib and
   Shenker, *Greed is not enough: adaptive load sharing in large heterogeneous systems*, INFOCOM 1988);
4. a hash of request and node, so that equals are spread and a choice can be repeated.

Before all of that goes the node on which the conversation's cache lies: see :mod:`hub.affinity`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import frexp
from types import MappingProxyType
from zlib import crc32

from hub import affinity as ring
from hub.policy import NO_NARROWING, Gate, Narrowing, NodeFacts, Policy, RegionTree, permits

QUEUE_PER_SLOT = 4
"""Requests a node may hold for each slot (running and waiting) before the Hub calls it full."""


class ModelState(StrEnum):
    """How far a node is from answering for one model."""

    READY = "ready"
    WARMING = "warming"
    COLD = "cold"


class Reason(StrEnum):
    """Why a node was not chosen: a gate of the policy, or the node's own condition."""

    POLICY = "policy"
    REVOKED = "revoked"
    OWNER = "owner"
    REGION = "region"
    TRUST = "trust"
    NARROWED = "narrowed"
    DRAINING = "draining"
    OFFLINE = "offline"
    UNREPORTED = "unreported"
    NOT_OFFERED = "not_offered"
    PAUSED = "paused"
    FIT = "fit"
    FULL = "full"
    EXCLUDED = "excluded"


class RefusalCode(StrEnum):
    """The error code of BEHAVIOUR's table that a refusal becomes."""

    NO_AVAILABLE_NODE = "no_available_node"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Candidate:
    """One node as the registry sees it now, for one model.

    Attributes:
        facts: what the policy judges.
        model_state: ``None`` where the node does not offer the model.
        fits: whether a cold model would fit, as the node reports it.
        in_flight: requests this Hub has open on the node for the model.
        running: requests the node reported as being answered.
        waiting: requests the node reported as queued.
        in_flight_then: requests this Hub had open on it when it reported.
        slots: requests the replica answers at once; 0 where unknown.
        accepting: the node takes new work: it is not paused, and its session is not about to end.
        tokens_per_second: measured speed of one answer, ``None`` before the first measurement.
        online: a live session exists; offline nodes are passed only to be counted.
        reported: it holds a credential that says these facts, and has said what it offers: both come right
            after connecting.
    """

    facts: NodeFacts
    model_state: ModelState | None
    fits: bool = True
    in_flight: int = 0
    running: int = 0
    waiting: int = 0
    in_flight_then: int = 0
    slots: int = 1
    accepting: bool = True
    tokens_per_second: float | None = None
    online: bool = True
    reported: bool = True

    @property
    def load(self) -> int:
        """Requests on the node: this Hub's own as they are now, and what others had there at its last report.

        A report is up to ten seconds old. What the Hub sent or saw end since is counted at once, so that a
        node that looked idle is not given everything until it reports again.
        """
        return self.in_flight + max(self.running + self.waiting - self.in_flight_then, 0)

    @property
    def readiness(self) -> ModelState:
        """The state by which it is ordered: a cold model that was just asked for is warming."""
        state = self.model_state or ModelState.COLD
        return ModelState.WARMING if state is ModelState.COLD and self.in_flight else state


@dataclass(frozen=True, slots=True)
class Selection:
    """The node that serves."""

    candidate: Candidate

    @property
    def node_id(self) -> str:
        """The chosen node."""
        return self.candidate.facts.node_id


@dataclass(frozen=True, slots=True)
class Refusal:
    """Nobody may and can serve.

    Attributes:
        code: ``overloaded`` only where a permitted node would serve but is full.
        counts: why, per reason, among the nodes of the caller's own organisation; nobody else's appear.
        passing: a permitted node is full or about to say what it offers: worth waiting for a moment.
    """

    code: RefusalCode
    counts: Mapping[Reason, int]
    passing: bool = False


def select_replica(
    policy: Policy | None,
    model: str,
    candidates: Iterable[Candidate],
    regions: RegionTree,
    narrowing: Narrowing = NO_NARROWING,
    *,
    exclude: frozenset[str] = frozenset(),
    tie_break: str = "",
    affinity: int | None = None,
) -> Selection | Refusal:
    """Choose among the permitted nodes: the readiest, where the wait is least, or where the cache lies.

    Args:
        policy: the key's rules; ``None`` refuses.
        model: the model asked for; part of the tie-break, so that two models spread differently.
        candidates: nodes for this model; offline ones only to be counted.
        regions: the operator's tree.
        narrowing: what the request asked for on top.
        exclude: nodes that this request has tried already.
        tie_break: anything that differs between requests, such as the request id; equal candidates are
            ordered by its hash with the node id, so the choice is repeatable and yet spreads.
        affinity: the conversation's place on the ring (:func:`hub.affinity.conversation_key`), if any.
    """
    refused: Counter[Reason] = Counter()
    able: list[Candidate] = []
    seen: set[Reason] = set()
    for candidate in candidates:
        reason = why_not(policy, candidate, regions, narrowing, exclude)
        if reason is None:
            able.append(candidate)
            continue
        seen.add(reason)
        if policy is not None and candidate.facts.owner_id == policy.organisation_id:
            refused[reason] += 1
    if able:
        return Selection(_best(able, f"{model}\0{tie_break}", affinity))
    code = RefusalCode.OVERLOADED if Reason.FULL in seen else RefusalCode.NO_AVAILABLE_NODE
    return Refusal(code, MappingProxyType(dict(refused)), passing=not seen.isdisjoint(PASSING))


def why_not(
    policy: Policy | None,
    candidate: Candidate,
    regions: RegionTree,
    narrowing: Narrowing,
    exclude: frozenset[str] = frozenset(),
) -> Reason | None:
    """What keeps a node from serving a request: a gate of the policy first, then its own condition."""
    decision = permits(policy, candidate.facts, regions, narrowing)
    if not decision.permitted:
        return Reason(decision.gate or Gate.POLICY)
    if candidate.facts.node_id in exclude:
        return Reason.EXCLUDED
    return why_unable(candidate)


def why_unable(candidate: Candidate) -> Reason | None:  # noqa: PLR0911 - one return a condition
    """What in the node's own condition keeps it from serving; ``None`` where nothing does.

    That people put it on drain is said before all that may change by itself.
    """
    if candidate.facts.draining is not False:
        return Reason.DRAINING
    if not candidate.online:
        return Reason.OFFLINE
    if not candidate.reported:
        return Reason.UNREPORTED
    if candidate.model_state is None:
        return Reason.NOT_OFFERED
    if not candidate.accepting:
        return Reason.PAUSED
    if candidate.model_state is ModelState.COLD and not candidate.fits:
        return Reason.FIT
    if candidate.load >= QUEUE_PER_SLOT * max(candidate.slots, 1):
        return Reason.FULL
    return None


PASSING = frozenset({Reason.FULL, Reason.UNREPORTED})
"""What passes by itself and is worth waiting for."""


# --- the order among the able ----------------------------------------------------------------------------


def _best(able: Sequence[Candidate], salt: str, affinity: int | None) -> Candidate:
    best = min(able, key=lambda candidate: rank(candidate, salt))
    if affinity is not None:
        ready = [candidate for candidate in able if candidate.readiness is ModelState.READY]
        for favourite in ring.nearest(ready, affinity):
            if is_within_bound(grade(favourite), grade(best)):
                return favourite
    return best


def rank(candidate: Candidate, salt: str) -> tuple[int, float, float, int, str]:
    """The exact order, least first; ``salt`` differs between requests."""
    node_id = candidate.facts.node_id
    return (
        _READINESS[candidate.readiness],
        *delay(candidate),
        crc32(f"{salt}\0{node_id}".encode()),
        node_id,
    )


def delay(candidate: Candidate) -> tuple[float, float]:
    """The wait and the crowding, in seconds for each token of a typical answer; the smaller the better."""
    state = candidate.readiness
    if state is ModelState.COLD:
        return 0.0, 0.0
    load, slots = candidate.load, max(candidate.slots, 1)
    speed = _speed(candidate.tokens_per_second)
    crowding = (load + 1) / (slots * speed)
    if load < slots or state is not ModelState.READY:
        return 0.0, crowding
    return (load + 1 - slots) / (slots * speed), crowding


def estimated_wait_s(candidate: Candidate, typical_tokens: float) -> float:
    """Seconds until a ready node begins with one more request; 0 while a slot is free.

    Args:
        candidate: a ready node.
        typical_tokens: the length of the model's usual answer.
    """
    return delay(candidate)[0] * typical_tokens


_READINESS = {ModelState.READY: 0, ModelState.WARMING: 1, ModelState.COLD: 2}

_FASTEST = 1e9  # tokens a second; more is a lie, infinity and NaN among it
_UNMEASURED = 128.0  # so that a new replica is tried soon
_SPEEDS = (1.0, 512.0)  # what is said beyond gains a node nothing


def _speed(tokens_per_second: float | None) -> float:
    """The speed as a power of two, so that small differences do not pin all traffic.

    What a node says may be no number at all: that counts as the slowest.
    """
    if tokens_per_second is None:
        return _UNMEASURED
    least, most = _SPEEDS
    if not least <= tokens_per_second < _FASTEST:
        return least
    return min(2.0 ** (frexp(tokens_per_second)[1] - 1), most)


# --- grades: the same order, coarse enough to be kept sorted while it changes -----------------------------

OCTAVES = 24
"""Grades of one kind: the delay by powers of two."""
FREE = 0
"""Ready, with a free slot: this and the next OCTAVES - 1 grades, by crowding."""
QUEUED = FREE + OCTAVES
"""Ready, every slot taken, with room in line: by the wait."""
WARMING = QUEUED + OCTAVES
"""Loading: by crowding."""
COLD = WARMING + OCTAVES
"""Would have to load it, and fits."""
FULL = COLD + 1
"""Nothing but its load keeps it from serving."""
PENDING = FULL + 1
"""Connected, and has yet to say what it offers."""
UNABLE = PENDING + 1
"""Offers the model, and is on drain, paused or has no room for it."""

_LEAST_EXPONENT = -20


def grade(candidate: Candidate) -> int | None:
    """The place of a node in the coarse order: least first, up to and with `COLD` able to serve.

    A lower grade is never worse in `rank` than a higher one. ``None`` for a node that does not offer the
    model.
    """
    reason = why_unable(candidate)
    if reason is Reason.DRAINING and candidate.model_state is None:
        return None
    if reason is not None:
        return _UNABLE_GRADES.get(reason)
    state = candidate.readiness
    if state is ModelState.COLD:
        return COLD
    wait, crowding = delay(candidate)
    if state is ModelState.WARMING:
        return WARMING + _octave(crowding)
    return QUEUED + _octave(wait) if wait else FREE + _octave(crowding)


def is_within_bound(favourite: int | None, best: int | None) -> bool:
    """Whether a conversation may go where its cache is though another node waits less, by both's grades.

    Nobody is made to wait for it: where a slot is free somewhere it must be free there, on a node that is
    less than four times as crowded as the emptiest; where everybody waits, its wait is less than twice the
    least.
    """
    if favourite is None or best is None:
        return False
    return favourite <= best + (favourite < QUEUED)


_UNABLE_GRADES = {
    Reason.FULL: FULL,
    Reason.UNREPORTED: PENDING,
    Reason.DRAINING: UNABLE,
    Reason.PAUSED: UNABLE,
    Reason.FIT: UNABLE,
}


def _octave(value: float) -> int:
    return min(max(frexp(value)[1] - _LEAST_EXPONENT, 0), OCTAVES - 1)
