"""Says in words what a key allows, and how many nodes that is right now.

Pure, and never of its own opinion: whether a node matches is asked of `hub.policy.permits`, the predicate
that requests meet too.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from hub.explain import waits_for_operator
from hub.policy import Fleet, NodeFacts, Policy, RegionTree, TrustClass, permits
from hub.portal.presenting import counted, trust_text

_WHOSE = {
    Fleet.OWN: "Runs only on machines of {organisation}",
    Fleet.SHARED: "Runs on machines of {organisation} and on those shared with it by name",
    Fleet.ANY: "Runs on machines of {organisation}, on those shared with it, and on public ones",
}


@dataclass(frozen=True, slots=True)
class Preview:
    """What a key allows: the rule, and what it comes to at this moment."""

    rule: str
    matches: str


def preview(
    policy: Policy | None,
    *,
    organisation: str,
    nodes: Sequence[NodeFacts],
    online: Collection[str],
    regions: RegionTree,
    region_names: Mapping[str, str],
) -> Preview:
    """Describe a policy.

    Args:
        policy: what the key would carry; None refuses everything.
        organisation: the name of the key's organisation.
        nodes: that organisation's own nodes. Of anybody else's nothing is counted or told.
        online: ids of the nodes that are connected.
        regions: the tree.
        region_names: names by code.
    """
    if policy is None:
        return Preview("Refuses every request: its rules cannot be read.", "Revoke it and create another.")
    return Preview(rule_words(policy, organisation, region_names), _matches(policy, nodes, online, regions))


def rule_words(policy: Policy, organisation: str, names: Mapping[str, str]) -> str:
    """Say what a policy allows, in a sentence; `names` are those of regions by code."""
    rule = _WHOSE[policy.fleet].format(organisation=organisation)
    if policy.regions:
        rule += ", standing in " + _either([names.get(code, code) for code in sorted(policy.regions)])
    else:
        rule += ", wherever they stand"
    if policy.minimum_trust > TrustClass.COMMUNITY:
        rule += f", of trust class {trust_text(policy.minimum_trust).lower()} or above"
    return rule + "."


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _matches(policy: Policy, nodes: Sequence[NodeFacts], online: Collection[str], regions: RegionTree) -> str:
    matching = [each for each in nodes if permits(policy, each, regions)]
    waiting = sum(waits_for_operator(policy, each, regions) for each in nodes)
    return " ".join(
        part
        for part in (
            _counts(len(nodes), len(matching), sum(each.node_id in online for each in matching)),
            _waiting(waiting),
            "" if policy.fleet is Fleet.OWN else "Other owners' machines may match too.",
        )
        if part
    )


def _counts(total: int, matching: int, online: int) -> str:
    if not total:
        return "You have no node yet, so every request would be refused until one joins."
    if not matching:
        return f"Right now none of your {counted(total, 'node')} matches: requests would be refused."
    verb = "matches" if matching == 1 else "match"
    return f"Right now {matching} of your {counted(total, 'node')} {verb}, {online} online."


def _waiting(unconfirmed: int) -> str:
    if not unconfirmed:
        return ""
    return f"{counted(unconfirmed, 'node')} cannot match before an operator confirms the region."
