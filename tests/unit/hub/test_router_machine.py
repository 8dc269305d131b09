"""Selection under random change: connect, disconnect, revoke, re-region, re-share, request, in any order.

A model of the registry holds what is true; every dispatch is judged against it by the oracle. (The same is
done to the real registry and dispatcher in `inference/test_fail_closed.py`.)
"""

from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from hub.policy import (
    Fleet,
    Narrowing,
    NodeFacts,
    Policy,
    RegionTree,
    Sharing,
    SharingKind,
    TrustClass,
    permits,
)
from hub.router import Candidate, ModelState, RefusalCode, Selection, select_replica
from tests.unit.hub.oracle import judge

TREE = RegionTree({"eu": None, "eu-de": "eu", "eu-de-fra": "eu-de", "eu-fr": "eu", "us": None})
NAMES = st.sampled_from(["n0", "n1", "n2", "n3"])
REGIONS = st.sampled_from(["eu", "eu-de", "eu-de-fra", "eu-fr", "us", None])
OWNERS = st.sampled_from(["org_a", "org_a", "org_b"])
SHARINGS = st.builds(
    Sharing, st.sampled_from(SharingKind), st.frozensets(st.sampled_from(["org_a", "org_b"]), max_size=2)
)
POLICIES = st.builds(
    Policy,
    st.sampled_from(["org_a", "org_b"]),
    st.sampled_from(Fleet),
    st.sampled_from([frozenset(), frozenset({"eu"}), frozenset({"eu-de"}), frozenset({"us"})]),
    st.sampled_from(TrustClass),
)
NARROWINGS = st.builds(
    Narrowing, st.sampled_from([None, None, "eu", "us"]), st.sampled_from([None, None, "n0", "n1"])
)


class Fleets(RuleBasedStateMachine):
    """Nodes come, go and change; requests must only ever reach those that may serve them."""

    def __init__(self):
        super().__init__()
        self.nodes = {}
        self.online = {}
        self.turn = 0

    @initialize(facts=st.lists(st.tuples(OWNERS, REGIONS, SHARINGS), min_size=4, max_size=4))
    def enroll(self, facts):
        for number, (owner, region, sharing) in enumerate(facts):
            name = f"n{number}"
            self.nodes[name] = NodeFacts(name, owner, region, True, TrustClass.VERIFIED, sharing)
            self.online[name] = ModelState.READY

    @rule(name=NAMES, state=st.sampled_from(ModelState))
    def connect(self, name, state):
        if not self.nodes[name].revoked:
            self.online[name] = state

    @rule(name=NAMES)
    def disconnect(self, name):
        self.online.pop(name, None)

    @rule(name=NAMES)
    def revoke(self, name):
        self.nodes[name] = replace(self.nodes[name], revoked=True)

    @rule(name=NAMES, draining=st.booleans())
    def drain_or_resume(self, name, draining):
        self.nodes[name] = replace(self.nodes[name], draining=draining)

    @rule(name=NAMES, region=REGIONS, confirmed=st.booleans())
    def change_region(self, name, region, confirmed):
        self.nodes[name] = replace(self.nodes[name], region=region, region_confirmed=confirmed)

    @rule(name=NAMES, sharing=SHARINGS)
    def change_sharing(self, name, sharing):
        self.nodes[name] = replace(self.nodes[name], sharing=sharing)

    @rule(name=NAMES, trust=st.sampled_from(TrustClass))
    def change_trust(self, name, trust):
        self.nodes[name] = replace(self.nodes[name], trust=trust)

    @rule(policy=POLICIES, narrowing=NARROWINGS, exclude=st.frozensets(NAMES, max_size=2))
    def request(self, policy, narrowing, exclude):
        self.turn += 1
        candidates = [
            Candidate(facts, self.online.get(name), online=name in self.online)
            for name, facts in self.nodes.items()
        ]
        result = select_replica(
            policy, "m", candidates, TREE, narrowing, exclude=exclude, tie_break=str(self.turn)
        )
        able = {
            name
            for name in self.online.keys() - exclude
            if not judge(policy, self.nodes[name], TREE, narrowing) and not self.nodes[name].draining
        }
        if isinstance(result, Selection):
            assert result.node_id in able
        else:
            assert not able
            assert result.code is RefusalCode.NO_AVAILABLE_NODE

    @invariant()
    def the_predicate_says_the_same(self):
        for node in self.nodes.values():
            for fleet in Fleet:
                policy = Policy("org_a", fleet, frozenset({"eu"}))
                assert permits(policy, node, TREE).permitted is (not judge(policy, node, TREE))


def test_no_dispatch_ever_violates_the_keys_policy():
    run_state_machine_as_test(Fleets, settings=settings(max_examples=100, stateful_step_count=30))
