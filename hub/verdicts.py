"""What becomes of a key's request on each node, as requests would meet it now: by the Hub's own copies.

Owns which nodes are judged by which facts, and that of other organisations' nodes nothing comes out but how
many. What is decided, and its words, are `hub.explain`'s. Must not know who asks, nor how it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.explain import Verdict, explain
from hub.policy import Narrowing, RegionAuthority
from hub.registry import Registry
from hub.storage.records import ApiKey, Node


@dataclass(frozen=True, slots=True)
class Others:
    """Other organisations' nodes that offer a model: how many, how many permitted, how many could serve."""

    nodes: int
    permitted: int
    serving: int


def own_verdicts(
    registry: Registry,
    authority: RegionAuthority,
    key: ApiKey,
    own: Sequence[Node],
    *,
    model: str,
    narrowing: Narrowing,
) -> tuple[Verdict, ...]:
    """Judge the nodes of the key's organisation, those that would serve first.

    Args:
        registry: the connected nodes, and the copies that requests are judged by.
        authority: whose word makes a region count.
        key: the key.
        own: the organisation's nodes; one that the registry has not is judged as stored.
        model: the model asked for.
        narrowing: what the request's own headers would ask for.
    """
    known = (registry.candidate(node.id, model) for node in own)
    candidates = {each.facts.node_id: each for each in known if each is not None}
    facts = [candidates[node.id].facts if node.id in candidates else node.facts(authority) for node in own]
    regions = registry.facts.regions
    return explain(key.policy, facts, regions, narrowing, model=model, candidates=candidates.values())


def others_counted(registry: Registry, key: ApiKey, model: str, narrowing: Narrowing) -> Others:
    """Count the nodes of other organisations than the key's."""
    candidates = [each for each in registry.candidates(model) if each.facts.owner_id != key.organisation_id]
    verdicts = explain(
        key.policy,
        [each.facts for each in candidates],
        registry.facts.regions,
        narrowing,
        model=model,
        candidates=candidates,
    )
    permitted, serving = sum(each.permitted for each in verdicts), sum(each.serves for each in verdicts)
    return Others(len(verdicts), permitted, serving)
