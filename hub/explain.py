"""Why a key's requests may run on a node or not: the decision node by node, with its reason in words.

Pure. Owns the words and who is named first, and has no opinion of its own: whether a node is permitted is
asked of `hub.policy.permits`, whether it could serve at this moment of `hub.router.select_replica`. Must
not know storage, sessions, terminals or pages, nor who may see which node: it explains those that it is
given.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from hub.policy import (
    NO_NARROWING,
    Fleet,
    Gate,
    Narrowing,
    NodeFacts,
    Policy,
    RegionTree,
    permits,
)
from hub.router import Candidate, Reason, Selection, select_replica
from hub.storage.records import ApiKey

GATES = frozenset(Reason(gate.value) for gate in Gate)
"""The reasons that are the policy's; the others are a node's condition at the moment."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a request at one node.

    Attributes:
        facts: the node as it was judged.
        reason: the first thing that keeps the request from it; ``None`` where nothing does.
        words: the reason in a sentence for people, with what would have to change.
        waits_for_operator: nothing but an operator's word about its region keeps the policy from permitting
            it.
    """

    facts: NodeFacts
    reason: Reason | None
    words: str
    waits_for_operator: bool = False

    @property
    def permitted(self) -> bool:
        """Whether the policy permits the node, whatever its condition."""
        return self.reason is None or self.reason not in GATES

    @property
    def serves(self) -> bool:
        """Whether nothing that was looked at keeps a request from it."""
        return self.reason is None


def explain(
    policy: Policy | None,
    nodes: Iterable[NodeFacts],
    regions: RegionTree,
    narrowing: Narrowing = NO_NARROWING,
    *,
    model: str = "",
    candidates: Iterable[Candidate] | None = None,
) -> tuple[Verdict, ...]:
    """Judge nodes one by one: those that would serve first, then by what refuses, then by id.

    Args:
        policy: the key's rules; ``None`` refuses.
        nodes: those to explain, each judged by these facts.
        regions: the operator's tree.
        narrowing: what the request would ask for on top.
        model: the model asked for; no gate of the policy depends on it, a node's condition does.
        candidates: the nodes' condition now, as the registry gives it for the model; ``None`` where there
            is no Hub running to ask, and then only the policy is judged, and whether a node is on drain. A
            node that is not among them is offline.
    """
    asked = _Asked(policy, regions, narrowing, model)
    now = None if candidates is None else {each.facts.node_id: each for each in candidates}
    return tuple(sorted((_judge(asked, node, now) for node in nodes), key=_place))


def key_refusal(key: ApiKey, model: str, now: float) -> str | None:
    """Say why the key itself refuses the request, whatever nodes there are; ``None`` where it does not.

    Args:
        key: the key.
        model: the model asked for.
        now: UTC seconds since the epoch.
    """
    if key.revoked_at is not None:
        return "The key was revoked: every request with it gets invalid_api_key. Create another."
    if not key.is_active(now):
        return "The key has expired: every request with it gets invalid_api_key. Create another."
    if not key.allows_model(model):
        return "The key's own list of models does not have this one: the request gets model_not_allowed."
    return None


@dataclass(frozen=True, slots=True)
class _Asked:
    """The request that is explained."""

    policy: Policy | None
    regions: RegionTree
    narrowing: Narrowing
    model: str

    @property
    def wanted(self) -> frozenset[str]:
        """The regions that the key names."""
        return frozenset() if self.policy is None else self.policy.regions

    def permits(self, node: NodeFacts) -> Gate | None:
        """The gate that refuses, as the predicate says it; ``None`` where none does."""
        decision = permits(self.policy, node, self.regions, self.narrowing)
        return None if decision.permitted else decision.gate or Gate.POLICY


def waits_for_operator(policy: Policy, node: NodeFacts, regions: RegionTree) -> bool:
    """Whether nothing but an operator's word about its region keeps a node from a policy."""
    if node.region_confirmed or permits(policy, node, regions).permitted:
        return False
    return permits(policy, replace(node, region_confirmed=True), regions).permitted


_ORDER = {reason: place for place, reason in enumerate(Reason)}


def _place(verdict: Verdict) -> tuple[bool, bool, int, str]:
    order = -1 if verdict.reason is None else _ORDER[verdict.reason]
    return (not verdict.serves, not verdict.permitted, order, verdict.facts.node_id)


def _judge(asked: _Asked, node: NodeFacts, now: Mapping[str, Candidate] | None) -> Verdict:
    gate = asked.permits(node)
    if gate is not None:
        waits = asked.permits(replace(node, region_confirmed=True)) is None
        words = f"its region {node.region} counts once an operator confirms it"
        return Verdict(
            node, Reason(gate.value), words if waits else _GATES[gate](asked, node), waits_for_operator=waits
        )
    if now is None:  # of its condition only this is stored
        reason = Reason.DRAINING if node.draining is not False else None
        return Verdict(node, reason, _PERMITTED if reason is None else _CONDITIONS[reason])
    candidate = now.get(node.node_id) or Candidate(node, None, online=False)
    reason = _condition(asked, replace(candidate, facts=node))
    return Verdict(node, reason, _READY if reason is None else _CONDITIONS.get(reason, reason.value))


def _condition(asked: _Asked, candidate: Candidate) -> Reason | None:
    """What keeps a permitted node from serving now.

    The router counts refusals among one's own nodes only, and a node's condition does not depend on whose it
    is: so it is asked about it as if it were.
    """
    policy = asked.policy
    owner = candidate.facts.owner_id if policy is None else policy.organisation_id
    own = replace(candidate, facts=replace(candidate.facts, owner_id=owner))
    found = select_replica(policy, asked.model, [own], asked.regions, asked.narrowing)
    return None if isinstance(found, Selection) else next(iter(found.counts), Reason.OFFLINE)


_PERMITTED = "permitted"
_READY = "permitted, and could serve it now"
_CONDITIONS = {
    Reason.DRAINING: "permitted, but on drain: it gets no requests until somebody resumes it",
    Reason.OFFLINE: "permitted, but not connected: on the machine, porten run starts it",
    Reason.UNREPORTED: "permitted, but only just connecting",
    Reason.NOT_OFFERED: "permitted, but it does not offer the model",
    Reason.PAUSED: "permitted, but it takes no requests now: it is paused or leaving",
    Reason.FIT: "permitted, but it has no room or no engine for the model",
    Reason.FULL: "permitted, but full at this moment",
}


def _policy_words(_asked: _Asked, _node: NodeFacts) -> str:
    return "the key's rules cannot be read: revoke it and create another"


def _revoked_words(_asked: _Asked, _node: NodeFacts) -> str:
    return "it was revoked: to bring the machine back, run porten login on it"


def _owner_words(asked: _Asked, node: NodeFacts) -> str:
    if node.sharing is None:
        return "its sharing rule cannot be read, so it serves nobody: save the node again"
    if asked.policy is None or asked.policy.fleet is Fleet.OWN:
        return "it is another organisation's, and the key is for its own organisation's nodes only"
    if asked.policy.fleet is Fleet.SHARED:
        return "it is another organisation's, which does not share it by name with the key's"
    return "it is another organisation's, which shares it neither with the public nor with the key's"


def _region_words(asked: _Asked, node: NodeFacts) -> str:
    wanted = _listed(asked.wanted)
    unknown = [code for code in asked.wanted if code not in asked.regions]
    if unknown:
        return f"the key asks for {wanted}, and this Hub has no region {_listed(unknown)}"
    return f"{_stands(node, asked.regions)}, and the key asks for {wanted}"


def _trust_words(asked: _Asked, node: NodeFacts) -> str:
    if node.trust is None or asked.policy is None:
        return "its trust class cannot be read, so it serves nobody: an operator has to save it again"
    least = asked.policy.minimum_trust.label
    return f"its trust class is {node.trust.label}, and the key asks for {least} or above"


def _narrowed_words(asked: _Asked, node: NodeFacts) -> str:
    wish = asked.narrowing
    if wish.node_id is not None and wish.node_id != node.node_id:
        return "the request itself asks for another node"
    if wish.region not in asked.regions:
        return f"the request itself asks for {wish.region}, which is no region of this Hub"
    return f"{_stands(node, asked.regions)}, and the request itself asks for {wish.region}"


_GATES: Mapping[Gate, Callable[[_Asked, NodeFacts], str]] = {
    Gate.POLICY: _policy_words,
    Gate.REVOKED: _revoked_words,
    Gate.OWNER: _owner_words,
    Gate.REGION: _region_words,
    Gate.TRUST: _trust_words,
    Gate.NARROWED: _narrowed_words,
}


def _stands(node: NodeFacts, regions: RegionTree) -> str:
    if node.region is None:
        return "it has no region"
    if node.region not in regions:
        return f"its region {node.region} is none of this Hub's"
    return f"it stands in {node.region}" + ("" if node.region_confirmed else ", unconfirmed")


def _listed(codes: Collection[str]) -> str:
    return " or ".join(sorted(codes))
