"""What is explained is what is decided, for random keys, nodes, trees and conditions; and its words."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.explain import GATES, explain, key_refusal
from hub.policy import (
    Fleet,
    Gate,
    Narrowing,
    NodeFacts,
    Policy,
    RegionTree,
    Sharing,
    SharingKind,
    TrustClass,
    permits,
)
from hub.router import Candidate, ModelState, Reason, Selection, select_replica
from hub.storage.records import ApiKey
from tests.unit.hub.oracle import judge

CODES = ["eu", "eu-de", "us", "x"]
TREE = RegionTree({"eu": None, "eu-de": "eu", "us": None})
TREES = st.dictionaries(st.sampled_from(CODES), st.sampled_from([*CODES, None]), max_size=4).map(RegionTree)
ORGANISATIONS = st.sampled_from(["org_a", "org_b"])
POLICIES = st.none() | st.builds(
    Policy,
    ORGANISATIONS,
    st.sampled_from(Fleet),
    st.frozensets(st.sampled_from(CODES), max_size=2),
    st.sampled_from(TrustClass),
)
FACTS = st.builds(
    NodeFacts,
    st.sampled_from(["n1", "n2", "n3", "n4"]),
    ORGANISATIONS,
    st.none() | st.sampled_from(CODES),
    st.booleans(),
    st.none() | st.sampled_from(TrustClass),
    st.none() | st.builds(Sharing, st.sampled_from(SharingKind), st.frozensets(ORGANISATIONS, max_size=2)),
    st.booleans(),
)
CANDIDATES = st.builds(
    Candidate,
    FACTS,
    st.none() | st.sampled_from(ModelState),
    fits=st.booleans(),
    running=st.sampled_from([0, 0, 9]),
    accepting=st.booleans(),
    online=st.booleans(),
    reported=st.booleans(),
)
WISHES = st.builds(
    Narrowing, st.none() | st.sampled_from([*CODES, "gone"]), st.none() | st.sampled_from(["n1", "n9"])
)
NODE = NodeFacts("n1", "org_a", "eu-de", True, TrustClass.VERIFIED, Sharing())
OWN = Policy("org_a")
EUROPE, AMERICA = (Policy("org_a", regions=frozenset({code})) for code in ("eu", "us"))


@settings(max_examples=200)
@given(POLICIES, st.lists(CANDIDATES, max_size=4, unique_by=lambda each: each.facts.node_id), TREES, WISHES)
def test_each_verdict_is_the_decision(policy, candidates, tree, wish):
    verdicts = explain(policy, [each.facts for each in candidates], tree, wish)
    given = sorted(each.facts.node_id for each in candidates)
    assert sorted(each.facts.node_id for each in verdicts) == given
    for verdict in verdicts:
        gate = permits(policy, verdict.facts, tree, wish).gate
        assert verdict.reason == gate
        assert verdict.permitted is verdict.serves is (judge(policy, verdict.facts, tree, wish) == [])
        assert verdict.words
        confirmed = replace(verdict.facts, region_confirmed=True)
        waits = gate is not None and permits(policy, confirmed, tree, wish).permitted
        assert verdict.waits_for_operator is waits
    reasons = [each.serves for each in verdicts]
    assert reasons == sorted(reasons, reverse=True), "those that would serve come first"


@settings(max_examples=200)
@given(POLICIES, st.lists(CANDIDATES, max_size=4, unique_by=lambda each: each.facts.node_id), TREES, WISHES)
def test_with_their_condition_those_serve_that_the_router_would_choose(policy, candidates, tree, wish):
    facts = [each.facts for each in candidates]
    verdicts = explain(policy, facts, tree, wish, model="m", candidates=candidates)
    one_by_one = {each.facts.node_id: select_replica(policy, "m", [each], tree, wish) for each in candidates}
    for verdict in verdicts:
        alone = one_by_one[verdict.facts.node_id]
        assert verdict.serves is isinstance(alone, Selection)
        assert verdict.permitted is (judge(policy, verdict.facts, tree, wish) == [])
        if policy is not None and verdict.facts.owner_id == policy.organisation_id and not verdict.serves:
            assert alone.counts == {verdict.reason: 1}


def words(policy, node, wish=None, **now):
    (verdict,) = explain(policy, [node], TREE, wish or Narrowing(), **now)
    return verdict.reason, verdict.words


OTHERS = replace(NODE, owner_id="org_b")


@pytest.mark.parametrize(
    ("policy", "node", "wish", "gate", "said"),
    [
        (None, NODE, None, Gate.POLICY, "revoke it and create another"),
        (OWN, replace(NODE, revoked=True), None, Gate.REVOKED, "porten login"),
        (OWN, OTHERS, None, Gate.OWNER, "its own organisation's nodes only"),
        (Policy("org_a", Fleet.SHARED), OTHERS, None, Gate.OWNER, "does not share it by name"),
        (Policy("org_a", Fleet.ANY), OTHERS, None, Gate.OWNER, "neither with the public nor"),
        (OWN, replace(NODE, sharing=None), None, Gate.OWNER, "sharing rule cannot be read"),
        (
            AMERICA,
            NODE,
            None,
            Gate.REGION,
            "it stands in eu-de, and the key asks for us",
        ),
        (AMERICA, replace(NODE, region=None), None, Gate.REGION, "no region"),
        (
            AMERICA,
            replace(NODE, region_confirmed=False),
            None,
            Gate.REGION,
            "it stands in eu-de, unconfirmed, and",
        ),
        (
            EUROPE,
            replace(NODE, region_confirmed=False),
            None,
            Gate.REGION,
            "its region eu-de counts once an operator confirms it",
        ),
        (
            EUROPE,
            replace(NODE, region="moon"),
            None,
            Gate.REGION,
            "its region moon is none of this Hub's",
        ),
        (
            Policy("org_a", regions=frozenset({"moon", "us"})),
            NODE,
            None,
            Gate.REGION,
            "the key asks for moon or us, and this Hub has no region moon",
        ),
        (
            Policy("org_a", minimum_trust=TrustClass.TRUSTED),
            NODE,
            None,
            Gate.TRUST,
            "its trust class is verified, and the key asks for trusted or above",
        ),
        (OWN, replace(NODE, trust=None), None, Gate.TRUST, "trust class cannot be read"),
        (OWN, NODE, Narrowing(node_id="n2"), Gate.NARROWED, "asks for another node"),
        (OWN, NODE, Narrowing(region="us"), Gate.NARROWED, "eu-de, and the request itself asks for us"),
        (OWN, NODE, Narrowing(region="moon"), Gate.NARROWED, "moon, which is no region of this Hub"),
        (
            OWN,
            replace(NODE, region_confirmed=False),
            Narrowing(region="eu"),
            Gate.NARROWED,
            "once an operator confirms it",
        ),
    ],
)
def test_a_refusal_says_what_would_have_to_change(policy, node, wish, gate, said):
    reason, explained = words(policy, node, wish)
    assert reason == gate
    assert said in explained


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (Candidate(NODE, ModelState.READY), None),
        (Candidate(NODE, None, online=False), Reason.OFFLINE),
        (Candidate(NODE, None, reported=False), Reason.UNREPORTED),
        (Candidate(NODE, None), Reason.NOT_OFFERED),
        (Candidate(NODE, ModelState.READY, accepting=False), Reason.PAUSED),
        (Candidate(replace(NODE, draining=True), ModelState.READY), Reason.DRAINING),
        (Candidate(replace(NODE, draining=True), None, online=False), Reason.DRAINING),
        (Candidate(NODE, ModelState.COLD, fits=False), Reason.FIT),
        (Candidate(NODE, ModelState.READY, in_flight=10_000), Reason.FULL),
    ],
)
@pytest.mark.parametrize("whose", ["org_a", "org_b"])
def test_a_condition_is_told_of_anybodys_permitted_node(candidate, reason, whose):
    node = replace(candidate.facts, owner_id=whose, sharing=Sharing(SharingKind.PUBLIC))
    now = {"model": "m", "candidates": [replace(candidate, facts=node)]}
    found, explained = words(Policy("org_a", Fleet.ANY), node, **now)
    assert found == reason
    assert explained.startswith("permitted")
    assert found not in GATES


def test_a_node_that_the_registry_does_not_know_is_offline():
    assert words(OWN, NODE, model="m", candidates=[])[0] is Reason.OFFLINE


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"models": frozenset({"m"})}, None),
        ({"models": frozenset({"other"})}, "model_not_allowed"),
        ({"models": frozenset()}, "model_not_allowed"),
        ({"expires_at": 10.0}, "expired"),
        ({"expires_at": 10.5}, None),
        ({"revoked_at": 3.0, "expires_at": 5.0}, "revoked"),
    ],
)
def test_a_key_may_refuse_by_itself(changes, said):
    values = {"fleet": "own", "regions": frozenset(), "minimum_trust": "community", "models": None}
    names = {"id": "key_a", "organisation_id": "org_a", "name": "k", "prefix": "sk", "hash": "-"}
    key = ApiKey(**names, created_at=0.0, **values | changes)
    refusal = key_refusal(key, "m", 10.0)
    assert refusal is None if said is None else said in refusal
