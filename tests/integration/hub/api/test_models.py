"""The list of models: merged from the nodes that the policy permits, each judged once for each model."""

from collections import Counter

import pytest
from msgspec.structs import replace

from hub import choosing
from hub.api import models
from hub.policy import NO_NARROWING


@pytest.fixture
async def world(bench):
    """Two nodes of the caller's and one of somebody else's."""
    mine, theirs = [await bench.organisation(name) for name in ("Mine", "Theirs")]
    nodes = [await bench.node(owner) for owner in (mine, mine, theirs)]
    admitted = await bench.hub.admission.authenticate(f"Bearer {await bench.key(mine)}")
    return admitted, nodes


def report(bench, node, **states):
    """Let a node have said this of its models."""
    status = node.status()
    said = tuple(
        replace(status.models[0], model=model, state=state.removesuffix("!"), fits=not state.endswith("!"))
        for model, state in states.items()
    )
    session = bench.hub.registry.session(node.node_id)
    bench.hub.registry.reported(session, replace(status, models=said))


async def test_every_permitted_node_counts_and_nobody_elses_is_looked_at(bench, world, monkeypatch):
    admitted, (one, two, foreign) = world
    judged = []

    def permits(policy, facts, *others):
        judged.append(facts.node_id)
        return real(policy, facts, *others)

    real = choosing.permits
    monkeypatch.setattr(choosing, "permits", permits)
    report(bench, one, a="cold", b="ready", d="warming", e="cold!")
    report(bench, two, a="ready", c="cold!", d="cold", e="ready")
    report(bench, foreign, a="ready", z="ready")
    found = models.offers(bench.hub, admitted, NO_NARROWING)
    assert [(offer.model, offer.state.value, len(offer.reports)) for offer in found] == [
        ("a", "ready", 2),
        ("b", "ready", 1),
        ("d", "warming", 2),
        ("e", "ready", 1),
    ]
    assert [offer.reports[0].state for offer in found] == ["ready", "ready", "warming", "ready"]
    assert Counter(judged) == {one.node_id: 4, two.node_id: 4}


async def test_a_keys_own_list_is_kept_to(bench, world):
    admitted, (one, *_) = world
    key = await bench.key(admitted.key.organisation_id, models=frozenset({"b"}))
    limited = await bench.hub.admission.authenticate(f"Bearer {key}")
    report(bench, one, a="ready", b="ready")
    assert [offer.model for offer in models.offers(bench.hub, limited, NO_NARROWING)] == ["b"]
