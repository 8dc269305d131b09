"""What a change of nodes or regions means for keys: how many, of how many organisations, gain or lose by it.

Pure. Owns the counting and no opinion: whether a key reaches a node, or a place, is asked of
`hub.policy.permits`, before and after. It gives numbers alone: whose keys they are is nobody else's business.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from hub.policy import PRIVATE, NodeFacts, Policy, RegionTree, TrustClass, permits
from hub.storage.records import ApiKey


@dataclass(frozen=True, slots=True)
class Reach:
    """So many keys, of so many organisations."""

    keys: int = 0
    organisations: int = 0


@dataclass(frozen=True, slots=True)
class Effect:
    """Who comes to be permitted by a change, and who no longer is."""

    gain: Reach
    lose: Reach

    @property
    def is_none(self) -> bool:
        """Whether no key is touched."""
        return not self.gain.keys and not self.lose.keys


def of_regions(keys: Iterable[ApiKey], regions: RegionTree) -> dict[str, Reach]:
    """For each region the keys that ask for a place and would take a node that stands there."""
    alike: defaultdict[tuple[object, ...], list[ApiKey]] = defaultdict(list)
    for key in keys:
        if key.regions:
            alike[key.fleet, key.regions, key.minimum_trust].append(key)
    return {
        code: _reach(
            key for group in alike.values() if _takes(group[0].policy, code, regions) for key in group
        )
        for code in regions.parents
    }


def of_move(keys: Iterable[ApiKey], code: str, before: RegionTree, after: RegionTree) -> Effect:
    """What it means for keys that a region, with all in it, lies elsewhere."""
    return _effect(
        keys, lambda policy: _takes(policy, code, before), lambda policy: _takes(policy, code, after)
    )


def of_node(keys: Iterable[ApiKey], before: NodeFacts, after: NodeFacts, regions: RegionTree) -> Effect:
    """What it means for keys that a node is another than before."""
    return _effect(
        keys,
        lambda policy: permits(policy, before, regions).permitted,
        lambda policy: permits(policy, after, regions).permitted,
    )


def _takes(policy: Policy | None, code: str, regions: RegionTree) -> bool:
    """Whether a policy takes the place itself: asked of a node there that passes every other gate."""
    if policy is None:
        return False
    anyone = NodeFacts(
        *("node", policy.organisation_id, code),
        region_confirmed=True,
        trust=max(TrustClass),
        sharing=PRIVATE,
    )
    return permits(policy, anyone, regions).permitted


Judge = Callable[[Policy | None], bool]


def _effect(keys: Iterable[ApiKey], before: Judge, after: Judge) -> Effect:
    judged = [(key, before(key.policy), after(key.policy)) for key in keys]
    return Effect(
        gain=_reach(key for key, was, will in judged if will and not was),
        lose=_reach(key for key, was, will in judged if was and not will),
    )


def _reach(keys: Iterable[ApiKey]) -> Reach:
    found = list(keys)
    return Reach(len(found), len({key.organisation_id for key in found}))
