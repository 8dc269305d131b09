"""Which node serves a request, among those that may.

Owns selection: readiness, load and the tie-break, and the reasons it gives when nothing is left. It must
not know storage, sessions or the clock, and it judges no access itself: it asks :func:`hub.policy.permits`
for every candidate, every time, and never returns one that was refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from zlib import crc32

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
        running: requests the node reports as being answered.
        waiting: requests the node reports as queued.
        slots: requests the replica answers at once; 0 where unknown.
        accepting: the node takes new work (not paused, not draining).
        tokens_per_second: measured speed of the replica, ``None`` before the first measurement.
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
    slots: int = 1
    accepting: bool = True
    tokens_per_second: float | None = None
    online: bool = True
    reported: bool = True

    @property
    def load(self) -> int:
        """Requests on the node: its report lags behind, the Hub's own count sees only its own; the larger."""
        return max(self.running + self.waiting, self.in_flight)


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
) -> Selection | Refusal:
    """Choose the readiest, then least loaded of the permitted nodes.

    Args:
        policy: the key's rules; ``None`` refuses.
        model: the model asked for; part of the tie-break, so that two models spread differently.
        candidates: every node of the registry for this model; offline ones only to be counted.
        regions: the operator's tree.
        narrowing: what the request asked for on top.
        exclude: nodes that this request has tried already.
        tie_break: anything that differs between requests, such as the request id; equal candidates are
            ordered by its hash with the node id, so the choice is repeatable and yet spreads.
    """
    refused: Counter[Reason] = Counter()
    best: Candidate | None = None
    seen: set[Reason] = set()
    for candidate in candidates:
        reason = _why_not(policy, candidate, regions, narrowing, exclude)
        if reason is None:
            best = _better(best, candidate, f"{model}\0{tie_break}")
            continue
        seen.add(reason)
        if policy is not None and candidate.facts.owner_id == policy.organisation_id:
            refused[reason] += 1
    if best is not None:
        return Selection(best)
    code = RefusalCode.OVERLOADED if Reason.FULL in seen else RefusalCode.NO_AVAILABLE_NODE
    return Refusal(code, MappingProxyType(dict(refused)), passing=not seen.isdisjoint(_PASSING))


def _why_not(
    policy: Policy | None,
    candidate: Candidate,
    regions: RegionTree,
    narrowing: Narrowing,
    exclude: frozenset[str],
) -> Reason | None:
    decision = permits(policy, candidate.facts, regions, narrowing)
    if not decision.permitted:
        return Reason(decision.gate or Gate.POLICY)
    if candidate.facts.node_id in exclude:
        return Reason.EXCLUDED
    return _why_unable(candidate)


def _why_unable(candidate: Candidate) -> Reason | None:  # noqa: PLR0911 - one return a condition
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


_PASSING = frozenset({Reason.FULL, Reason.UNREPORTED})
_READINESS = {ModelState.READY: 0, ModelState.WARMING: 1, ModelState.COLD: 2}


def _better(best: Candidate | None, other: Candidate, salt: str) -> Candidate:
    if best is None or _rank(other, salt) < _rank(best, salt):
        return other
    return best


def _rank(candidate: Candidate, salt: str) -> tuple[int, float, int, int, str]:
    state = candidate.model_state or ModelState.COLD
    node_id = candidate.facts.node_id
    return (
        _READINESS[state],
        candidate.load / max(candidate.slots, 1),
        _speed_class(candidate.tokens_per_second),
        crc32(f"{salt}\0{node_id}".encode()),
        node_id,
    )


_FASTEST = 1e9  # tokens a second; more is a lie, infinity and NaN among it


def _speed_class(tokens_per_second: float | None) -> int:
    """Rank by powers of two, so that small differences do not pin all traffic; the unmeasured go first.

    What a node says may be no number at all: that ranks last.
    """
    if tokens_per_second is None:
        return -64
    if not 0 <= tokens_per_second < _FASTEST:
        return 0
    return -max(int(tokens_per_second), 0).bit_length()
