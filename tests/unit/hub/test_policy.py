"""The predicate against an oracle written another way: sets and a table of rules, not a chain of refusals."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.policy import (
    NO_NARROWING,
    PRIVATE,
    Decision,
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
    read_policy,
)
from tests.unit.hub.oracle import TRUST, inside, judge

TREE = RegionTree(
    {"eu": None, "eu-de": "eu", "eu-de-fra": "eu-de", "eu-fr": "eu", "us": None, "lost": "gone"}
)


REGION_SETS = [frozenset(), {"eu"}, {"eu-de"}, {"us", "eu-fr"}, {"atlantis"}, {"gone"}, {"lost"}]
POLICIES = [None] + [
    Policy("org_a", fleet, frozenset(regions), trust)
    for fleet, regions, trust in itertools.product(Fleet, REGION_SETS, TrustClass)
]
SHARINGS = [
    None,
    Sharing(),
    Sharing(SharingKind.PUBLIC),
    Sharing(SharingKind.PRIVATE, frozenset({"org_a"})),
    Sharing(SharingKind.ORGANISATIONS, frozenset({"org_a"})),
    Sharing(SharingKind.ORGANISATIONS, frozenset({"org_c"})),
]
NODES = [
    NodeFacts("n1", owner, region, confirmed, trust, sharing, revoked=revoked)
    for owner, region, confirmed, trust, sharing, revoked in itertools.product(
        ["org_a", "org_b"],
        ["eu", "eu-de-fra", "us", "lost", "atlantis", None],
        [True, False],
        [None, TrustClass.COMMUNITY, TrustClass.TRUSTED],
        SHARINGS,
        [False, True],
    )
]


def gate_of(decision):
    """The gate's name, None where permitted; the two parts of an answer never contradict each other."""
    assert bool(decision) is decision.permitted is (decision.gate is None)
    return decision.gate and decision.gate.value


def first(rules):
    return next(iter(rules), None)


def test_every_combination_agrees_with_the_oracle():
    seen = {True: 0, False: 0}
    for policy, node in itertools.product(POLICIES, NODES):
        decision = permits(policy, node, TREE)
        assert gate_of(decision) == first(judge(policy, node, TREE)), (policy, node)
        seen[decision.permitted] += 1
    assert seen[True] > 1_000
    assert seen[False] > 50_000


CODES = ["eu", "eu-de", "eu-fr", "us", "x", "y"]
TREES = st.dictionaries(
    st.sampled_from(CODES), st.sampled_from([*CODES, "gone", None]), min_size=2, max_size=6
).map(RegionTree)
ORGANISATIONS = st.sampled_from(["org_a", "org_b", "org_c"])
RANDOM_POLICIES = st.none() | st.builds(
    Policy,
    ORGANISATIONS,
    st.sampled_from(Fleet),
    st.frozensets(st.sampled_from(CODES), max_size=3),
    st.sampled_from(TrustClass),
)
RANDOM_NODES = st.builds(
    NodeFacts,
    st.sampled_from(["n1", "n2", "n2", ""]),
    ORGANISATIONS | st.sampled_from(["org_a", "org_b", ""]),
    st.none() | st.sampled_from([*CODES, "gone"]),
    st.booleans(),
    st.none() | st.sampled_from(TrustClass),
    st.none() | st.builds(Sharing, st.sampled_from(SharingKind), st.frozensets(ORGANISATIONS, max_size=2)),
    st.booleans(),
)
NARROWINGS = st.builds(
    Narrowing,
    st.none() | st.sampled_from([*CODES, "nowhere"]),
    st.none() | st.sampled_from(["n1", "n2", "n3"]),
)


# Drawn in batches: each example is a tree, and every policy meets every node on it.
@settings(max_examples=150)
@given(
    st.lists(RANDOM_POLICIES, min_size=4, max_size=8),
    st.lists(RANDOM_NODES, min_size=4, max_size=8),
    TREES,
    st.lists(NARROWINGS, min_size=2, max_size=3),
)
def test_random_trees_with_cycles_and_lost_parents_agree_with_the_oracle(policies, nodes, tree, narrowings):
    for policy, node, narrowing in itertools.product(policies, nodes, narrowings):
        decision = permits(policy, node, tree, narrowing)
        assert gate_of(decision) == first(judge(policy, node, tree, narrowing))
        assert permits(policy, node, tree).permitted or not decision.permitted, "a narrowing widened"


@settings(max_examples=150)
@given(TREES)
def test_a_region_holds_what_the_closure_of_parents_says(tree):
    everywhere = inside(tree.parents)
    for place, around in itertools.product([*CODES, "gone"], repeat=2):
        assert tree.contains(around, place) is ((place, around) in everywhere)
        assert (place in tree) is (place in tree.parents)


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_a_chain_of_regions_is_walked_to_its_end(length):
    tree = RegionTree({f"r{n}": f"r{n - 1}" if n else None for n in range(length)})
    assert tree.contains("r0", f"r{length - 1}")
    assert tree.contains(f"r{length - 1}", "r0") is (length == 1)


GARBAGE = st.none() | st.text(max_size=8) | st.integers() | st.booleans() | st.binary(max_size=3)


@settings(max_examples=200)
@given(st.data())
def test_a_value_of_the_wrong_kind_refuses_and_never_raises(data):
    policy = Policy("org_a", Fleet.ANY, frozenset({"eu"}), TrustClass.COMMUNITY)
    node = NodeFacts("n1", "org_a", "eu", True, TrustClass.TRUSTED, Sharing(SharingKind.PUBLIC))
    assert permits(policy, node, TREE).permitted
    damaged, name = data.draw(
        st.sampled_from(
            [(policy, name) for name in ("fleet", "regions", "minimum_trust")]
            + [(node, name) for name in ("region", "region_confirmed", "trust", "sharing", "revoked")]
        )
    )
    sound = (getattr(damaged, name), False if name == "revoked" else None, "eu-de", "eu-de-fra", "eu-fr")
    worth = data.draw(GARBAGE.filter(lambda value: value not in sound))
    object.__setattr__(damaged, name, worth)
    assert not permits(policy, node, TREE).permitted


@pytest.mark.parametrize("missing", ["", None])
def test_nobody_owns_nothing(missing):
    policy = Policy(missing, Fleet.ANY)
    node = NodeFacts("n1", missing, None, False, TrustClass.TRUSTED, Sharing(SharingKind.PUBLIC))
    assert permits(policy, node, TREE).gate is Gate.POLICY
    assert permits(Policy("org_a", Fleet.ANY), node, TREE).gate is Gate.OWNER


def test_a_key_for_a_country_does_not_accept_its_continent():
    node = NodeFacts("n1", "org_a", "eu", True, TrustClass.COMMUNITY, Sharing())
    inner = dataclasses.replace(node, region="eu-de-fra")
    assert permits(Policy("org_a", regions=frozenset({"eu-de"})), node, TREE).gate is Gate.REGION
    assert permits(Policy("org_a", regions=frozenset({"eu"})), inner, TREE)


@pytest.mark.parametrize(
    ("whose", "fleet", "regions", "trust"),
    [
        ("org_a", "all", [], "community"),
        ("org_a", "own", None, "community"),
        ("org_a", "own", [], "great"),
        ("org_a", "own", [7], "community"),
        ("org_a", "own", ["eu", None], "community"),
        ("", "own", [], "community"),
        (None, "own", ["eu"], "community"),
    ],
)
def test_what_cannot_be_read_is_no_policy(whose, fleet, regions, trust):
    assert read_policy(whose, fleet, regions, trust) is None


def test_a_sound_policy_is_read_as_written():
    expected = Policy("org_a", Fleet.SHARED, frozenset({"eu"}), TrustClass.VERIFIED)
    assert read_policy("org_a", "shared", ["eu"], "verified") == expected


def test_trust_classes_read_their_own_labels():
    assert [TrustClass.parse(trust.label) for trust in TrustClass] == sorted(TrustClass)
    assert [TrustClass.parse(name.upper()) for name in TRUST] == sorted(TrustClass)
    with pytest.raises(ValueError, match=r"'great'; known: community, verified, trusted, confidential$"):
        TrustClass.parse("great")


def test_a_sharing_rule_is_read_as_written():
    named = Sharing(SharingKind.ORGANISATIONS, frozenset({"org_a", "org_b"}))
    assert Sharing.parse("organisations", ["org_b", "org_a", "org_b"]) == named
    assert Sharing.parse("public") == Sharing(SharingKind.PUBLIC, frozenset())
    with pytest.raises(ValueError, match="everybody"):
        Sharing.parse("everybody")


def test_what_is_not_said_is_the_narrowest():
    assert Policy("org_a") == Policy("org_a", Fleet.OWN, frozenset(), TrustClass.COMMUNITY)
    assert PRIVATE == Sharing() == Sharing(SharingKind.PRIVATE, frozenset())
    assert RegionTree().parents == {}
    assert Narrowing() == NO_NARROWING == Narrowing(region=None, node_id=None)
    assert not Decision(permitted=False)
    assert Decision(permitted=False).gate is None
