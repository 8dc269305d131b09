"""The indexed choice against a plain scan of all nodes, through random sequences of changes."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hub import shelves
from hub.choosing import FEW, Asked
from hub.policy import Fleet, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass, permits
from hub.router import COLD, PENDING, Candidate, ModelState, Refusal, Selection, grade, rank, select_replica
from tests.unit.hub.choosing.nodes import (
    MODELS,
    NAMES,
    POLICY,
    SEEDS,
    TREE,
    Nodes,
    some_condition,
    some_facts,
    some_request,
)
from tests.unit.hub.drawing import run_until


def check(nodes, asked):
    """Found and scanned: the same refusal, or a choice of equal rank among the same permitted nodes."""
    scanned, found = nodes.scan(asked), nodes.chooser.find(asked)
    if isinstance(scanned, Refusal):
        assert found is None
        assert nodes.chooser.refusal(asked) == scanned
        assert nodes.chooser.is_passing(asked) == scanned.passing
        return None
    assert found is not None
    assert permits(asked.policy, found.candidate.facts, nodes.regions, asked.narrowing)
    assert found.node_id not in asked.exclude
    best = grade(scanned.candidate)
    assert best <= COLD
    if found != scanned:
        assert grade(found.candidate) == best
        assert len(nodes.of_grade(asked, best)) > FEW, "of a few, the very best is taken"
    return found


class Changes(RuleBasedStateMachine):
    """Nodes come, go and change between requests."""

    def __init__(self):
        super().__init__()
        self.nodes = Nodes()

    @initialize(seed=SEEDS, count=st.integers(0, 12))
    def begin(self, seed, count):
        chance = random.Random(seed)
        for name in NAMES[:count]:
            self.put_one(chance, name)

    def put_one(self, chance, name):
        offers = chance.sample(MODELS, chance.choice([0, 1, 1, 2]))
        self.nodes.put(some_facts(chance, name), {model: some_condition(chance) for model in offers})

    @rule(seed=SEEDS, name=st.sampled_from(NAMES))
    def put(self, seed, name):
        self.put_one(random.Random(seed), name)

    @rule(name=st.sampled_from(NAMES), model=st.sampled_from(MODELS), more=st.integers(-2, 2))
    def load(self, name, model, more):
        """A request comes or ends: one model of one node moves."""
        candidate = self.nodes.candidate(name, model)
        if candidate is not None and candidate.reported:
            changed = replace(candidate, in_flight=max(candidate.in_flight + more, 0))
            self.nodes.known[name][model] = changed
            self.nodes.index.grade(name, model, grade(changed))

    @rule(name=st.sampled_from(NAMES))
    def drain(self, name):
        """What the index is not told of: the session begins to drain."""
        for model, candidate in self.nodes.known.get(name, {}).items():
            self.nodes.known[name][model] = replace(candidate, accepting=False)

    @rule(name=st.sampled_from(NAMES))
    def lose(self, name):
        self.nodes.known.pop(name, None)
        self.nodes.index.remove(name)

    @rule(parents=st.sampled_from([TREE.parents, TREE.parents, {}, {**TREE.parents, "mars": "eu"}]))
    def regions(self, parents):
        self.nodes.regions = RegionTree(dict(parents))

    @rule(seed=SEEDS, count=st.integers(1, 8))
    def request(self, seed, count):
        chance = random.Random(seed)
        for _ in range(count):
            found = check(self.nodes, some_request(chance))
            type(self).served += found is not None
            type(self).refused += found is None


@pytest.mark.parametrize(("many", "pools"), [(shelves.MANY, shelves.MAX_POOLS), (0, 2)])
def test_the_choice_is_the_one_a_scan_of_all_nodes_would_make(many, pools, monkeypatch):
    """With leaves looked at one by one, and with pools of them, which are as few as can be."""
    monkeypatch.setattr(shelves, "MANY", many)
    monkeypatch.setattr(shelves, "MAX_POOLS", pools)
    Changes.served = Changes.refused = 0
    checks = settings(max_examples=200, stateful_step_count=40, deadline=None)
    run_until(Changes, checks, lambda: Changes.served > 200 and Changes.refused > 300)
    assert Changes.served > 200, "the machine must also serve"
    assert Changes.refused > 300


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(20, 80))
def test_among_many_the_choice_is_of_the_best_grade(seed, count):
    chance, nodes = random.Random(seed), Nodes()
    for number in range(count):
        region, trust = chance.choice(["eu", "eu-de", "us"]), chance.choice(list(TrustClass))
        owner, kind = chance.choice(["org_a", "org_b"]), chance.choice(list(SharingKind))
        facts = NodeFacts(f"n{number}", owner, region, True, trust, Sharing(kind, frozenset({"org_a"})))
        state = chance.choice([ModelState.READY] * 4 + [ModelState.COLD])
        nodes.put(facts, {"m": {"model_state": state, "in_flight": chance.randrange(9), "slots": 2}})
    for turn in range(40):
        regions = frozenset(chance.sample(["eu", "us"], chance.randrange(3)))
        policy = Policy("org_a", chance.choice(list(Fleet)), regions, chance.choice(list(TrustClass)))
        tried = frozenset(f"n{chance.randrange(count)}" for _ in range(chance.choice([0, 0, 2])))
        affinity = chance.choice([None, chance.getrandbits(64)])
        check(
            nodes,
            Asked(policy=policy, model="m", exclude=tried, tie_break=str(turn), affinity=affinity),
        )


CANDIDATES = SEEDS.map(
    lambda seed: Candidate(
        NodeFacts("n", "org_a", "eu", True, TrustClass.TRUSTED, Sharing()),
        **some_condition(random.Random(seed)),
    )
)


@settings(deadline=None)
@given(CANDIDATES, CANDIDATES)
def test_a_lower_grade_is_never_worse(one, other):
    able = [each for each in (one, other) if (place := grade(each)) is not None and place <= COLD]
    if len(able) == 2 and grade(one) < grade(other):
        assert rank(one, "x")[:3] <= rank(other, "x")[:3]


@settings(deadline=None)
@given(CANDIDATES)
def test_what_has_a_grade_up_to_cold_is_what_selection_takes(candidate):
    chosen = select_replica(POLICY, "m", [candidate], TREE)
    place = grade(candidate)
    assert isinstance(chosen, Selection) == (place is not None and place <= COLD)
    assert (place == PENDING) == (not candidate.reported)
