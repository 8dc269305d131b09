"""What a key's form promises against what `permits` decides, for nodes and policies drawn by chance."""

import re
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.policy import Fleet, Policy, RegionAuthority, RegionTree, Sharing, SharingKind, TrustClass, permits
from hub.portal.key_preview import preview
from hub.storage.records import Node

CODES = ["eu", "eu-de", "eu-fr", "us", "x"]
TREES = st.dictionaries(st.sampled_from(CODES), st.sampled_from([*CODES, None]), max_size=5).map(RegionTree)
ORGANISATIONS = st.sampled_from(["org_a", "org_b"])
POLICIES = st.builds(
    Policy,
    ORGANISATIONS,
    st.sampled_from(Fleet),
    st.frozensets(st.sampled_from(CODES), max_size=3),
    st.sampled_from(TrustClass),
)
NODES = st.builds(
    Node,
    id=st.sampled_from([f"node_{number}" for number in range(6)]),
    organisation_id=ORGANISATIONS,
    name=st.just("attic"),
    public_key=st.just("-"),
    region=st.none() | st.sampled_from(CODES),
    region_confirmed=st.booleans(),
    trust=st.none() | st.sampled_from(TrustClass),
    sharing=st.none() | st.builds(Sharing, st.sampled_from(SharingKind), st.frozensets(ORGANISATIONS)),
    machine=st.just({}),
    generation=st.just(0),
    created_at=st.just(0.0),
    revoked_at=st.none() | st.just(1.0),
)


def shown(policy, nodes=(), online=(), tree=None, names=None, authority=RegionAuthority.OPERATOR):
    return preview(
        policy,
        organisation="Acme",
        nodes=[node.facts(authority) for node in nodes],
        online=online,
        regions=tree or RegionTree(),
        region_names=names or {},
    )


def counts(words):
    """How many match, are online, and wait for an operator, as the sentence says."""
    found = re.search(r"Right now ([\d,]+) of your ([\d,]+) nodes? match(?:es)?, ([\d,]+) online\.", words)
    waiting = re.search(r"([\d,]+) nodes? cannot match before an operator", words)
    matching, online = (int(found[1]), int(found[3])) if found else (0, 0)
    return matching, online, int(waiting[1]) if waiting else 0


@settings(max_examples=300)
@given(
    POLICIES,
    st.lists(NODES, max_size=6, unique_by=lambda node: node.id),
    st.sets(st.sampled_from([f"node_{number}" for number in range(6)])),
    TREES,
    st.sampled_from(RegionAuthority),
)
def test_the_preview_counts_what_the_policy_permits(policy, nodes, online, tree, authority):
    matching = [node for node in nodes if permits(policy, node.facts(authority), tree)]
    once_confirmed = [
        node for node in nodes if permits(policy, replace(node.facts(authority), region_confirmed=True), tree)
    ]
    words = shown(policy, nodes, online, tree, authority=authority).matches
    assert counts(words) == (
        len(matching),
        sum(node.id in online for node in matching),
        len(once_confirmed) - len(matching),
    )
    assert ("would be refused" in words) is (not matching)
    assert ("Other owners' machines" in words) is (policy.fleet is not Fleet.OWN)


def test_a_key_that_cannot_be_read_promises_nothing():
    assert "Refuses every request" in shown(None).rule


def test_no_node_yet_is_said_so():
    assert (
        shown(Policy("org_a")).matches
        == "You have no node yet, so every request would be refused until one joins."
    )


def test_a_node_without_a_region_is_not_said_to_wait_for_the_operator(make_node):
    nodes = [make_node(region=None, region_confirmed=False)]
    tree = RegionTree({"eu": None})
    assert counts(shown(Policy("org_a", regions=frozenset({"eu"})), nodes, tree=tree).matches) == (0, 0, 0)


def test_a_node_that_waits_is_told_apart_from_one_that_never_matches(make_node):
    nodes = [
        make_node(id="node_1", region_confirmed=False),
        make_node(id="node_2", region="us", region_confirmed=False),
        make_node(id="node_3", region_confirmed=False, trust=TrustClass.COMMUNITY),
    ]
    tree = RegionTree({"eu": None, "eu-de": "eu", "us": None})
    policy = Policy("org_a", regions=frozenset({"eu"}), minimum_trust=TrustClass.VERIFIED)
    assert counts(shown(policy, nodes, tree=tree).matches) == (0, 0, 1)
    assert counts(shown(policy, nodes, tree=tree, authority=RegionAuthority.OWNER).matches) == (1, 0, 0)


def test_the_rule_reads_as_the_choices_were_made():
    names = {"eu-de": "Germany", "us": "United States"}
    policy = Policy("org_a", Fleet.SHARED, frozenset({"us", "eu-de", "x"}), TrustClass.TRUSTED)
    assert shown(policy, names=names).rule == (
        "Runs on machines of Acme and on those shared with it by name, "
        "standing in Germany, United States or x, of trust class trusted or above."
    )
    assert shown(Policy("org_a")).rule == "Runs only on machines of Acme, wherever they stand."
