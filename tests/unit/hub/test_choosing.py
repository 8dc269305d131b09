"""The indexed choice against a plain scan of all nodes, through random sequences of changes."""

import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from hub import shelves
from hub.affinity import position
from hub.choosing import FEW, Asked, Chooser
from hub.offers import OfferIndex
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
from hub.router import (
    COLD,
    PENDING,
    Candidate,
    ModelState,
    Refusal,
    Selection,
    grade,
    rank,
    select_replica,
)
from tests.unit.hub.drawing import run_until

TREE = RegionTree({"eu": None, "eu-de": "eu", "eu-fr": "eu", "us": None})
MODELS = ("m", "n")


class Nodes:
    """What the registry is to the chooser, without sessions."""

    def __init__(self):
        self.known = {}
        self.index = OfferIndex()
        self.chooser = Chooser(self.index, self)
        self.regions = TREE
        self.refiled = 0

    def candidate(self, node_id, model):
        return self.known.get(node_id, {}).get(model)

    def own(self, organisation_id):
        return [name for name, models in self.known.items() if models["m"].facts.owner_id == organisation_id]

    is_reading = False

    def refile(self, node_id, model):
        self.refiled += 1
        self.index.grade(node_id, model, grade(self.known[node_id][model]))

    def put(self, facts, conditions):
        """A node is as these conditions say, by model; what it does not offer has none."""
        models = {model: Candidate(facts, None) for model in MODELS} | {
            model: Candidate(facts, **condition) for model, condition in conditions.items()
        }
        self.known[facts.node_id] = models
        if not all(each.reported for each in models.values()):
            self.known[facts.node_id] = {model: Candidate(facts, None, reported=False) for model in MODELS}
            self.index.file_pending(facts)
            return
        grades = {model: place for model, each in models.items() if (place := grade(each)) is not None}
        self.index.file(facts, grades)

    def scan(self, asked):
        return select_replica(
            asked.policy,
            asked.model,
            [models[asked.model] for models in self.known.values()],
            self.regions,
            asked.narrowing,
            exclude=asked.exclude,
            tie_break=asked.tie_break,
            affinity=asked.affinity,
        )

    def of_grade(self, asked, place):
        """The permitted nodes of one grade, those tried already among them."""
        permitted = [
            models[asked.model]
            for models in self.known.values()
            if permits(asked.policy, models[asked.model].facts, self.regions, asked.narrowing)
        ]
        return [each for each in permitted if grade(each) == place]


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


SEEDS = st.integers(0, 2**32 - 1)
"""Of what is drawn by chance: drawn piece by piece, hardly any request would pass all gates at once."""
NAMES = [f"n{number}" for number in range(12)]


def some_facts(chance, name):
    return NodeFacts(
        name,
        chance.choice(["org_a", "org_a", "org_b", "org_c"]),
        chance.choice(["eu-de", "eu-de", "eu", "eu-fr", "us", "mars", None]),
        chance.random() < 0.8,
        chance.choice([*TrustClass, TrustClass.TRUSTED, TrustClass.TRUSTED, None]),
        chance.choice([None, *[Sharing(kind, frozenset({"org_a"})) for kind in SharingKind] * 3]),
        chance.random() < 0.1,
        chance.random() < 0.1,
    )


def some_condition(chance):
    return {
        "model_state": chance.choice([*ModelState, ModelState.READY, ModelState.READY]),
        "fits": chance.random() < 0.7,
        "in_flight": chance.randrange(7),
        "running": chance.randrange(5),
        "waiting": chance.randrange(3),
        "in_flight_then": chance.randrange(5),
        "slots": chance.randrange(4),
        "accepting": chance.random() < 0.8,
        "tokens_per_second": chance.choice([None, 0.0, 5.0, 30.0, 31.0, 400.0, float("nan"), 1e300]),
        "reported": chance.random() < 0.9,
    }


def some_request(chance):
    policy = Policy(
        chance.choice(["org_a", "org_a", "org_b", "org_d"]),
        chance.choice(list(Fleet)),
        frozenset(chance.choice([(), (), ("eu",), ("eu-de", "us"), ("mars",)])),
        chance.choice([TrustClass.COMMUNITY, *TrustClass]),
    )
    return Asked(
        policy=None if chance.random() < 0.03 else policy,
        model=chance.choice(["m", "m", "n"]),
        narrowing=Narrowing(
            chance.choice([None] * 6 + ["eu", "us"]), chance.choice(NAMES) if chance.random() < 0.1 else None
        ),
        exclude=frozenset(chance.sample(NAMES, chance.choice([0, 0, 1, 3]))),
        tie_break=str(chance.randrange(100)),
        affinity=chance.choice([None, chance.getrandbits(64)]),
    )


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


# --- what it is for


def fleet(count, **condition):
    nodes = Nodes()
    for number in range(count):
        facts = NodeFacts(f"n{number}", "org_a", "eu", True, TrustClass.TRUSTED, Sharing())
        nodes.put(facts, {"m": {"model_state": ModelState.READY, "slots": 4, **condition}})
    return nodes


POLICY = Policy("org_a")


def test_a_conversation_comes_back_to_its_node_until_others_wait_less():
    nodes = fleet(50)
    home = nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break="1", affinity=77)).node_id
    for turn in range(20):
        again = nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break=str(turn), affinity=77))
        assert again.node_id == home
    nodes.put(
        nodes.known[home]["m"].facts, {"m": {"model_state": ModelState.READY, "slots": 4, "in_flight": 4}}
    )
    spilled = {
        nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break=str(turn), affinity=77)).node_id
        for turn in range(20)
    }
    assert home not in spilled, "it would wait there, and nowhere else"
    assert len(spilled) == 1, "and what is spilled has a second home"


def test_requests_without_a_conversation_spread():
    nodes = fleet(50)
    picked = {
        nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break=f"req_{turn}")).node_id
        for turn in range(400)
    }
    assert len(picked) > 45


def test_conversations_spread():
    nodes = fleet(20)
    homes = {
        nodes.chooser.find(Asked(policy=POLICY, model="m", affinity=position(f"c{n}"))).node_id
        for n in range(500)
    }
    assert len(homes) >= 18, "arcs of the ring are of unequal length"


def test_a_draining_node_is_passed_over_and_put_in_its_place():
    nodes = fleet(30)
    for name in list(nodes.known)[1:]:
        nodes.known[name]["m"] = replace(nodes.known[name]["m"], accepting=False)
    for turn in range(5):
        found = nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break=str(turn)))
        assert found.node_id == "n0"
    for turn in range(200):
        nodes.chooser.find(Asked(policy=POLICY, model="m", tie_break=str(turn)))
    assert 0 < nodes.refiled <= 2 * 29, "each is met once, and is not in the way any more"


def test_a_policy_that_makes_no_sense_finds_nothing_and_spoils_nothing_for_others():
    nodes = fleet(3)
    for broken in (
        replace(POLICY, fleet="own"),
        replace(POLICY, regions=["eu"]),
        replace(POLICY, minimum_trust=1),
        replace(POLICY, organisation_id=""),
    ):
        assert nodes.chooser.find(Asked(policy=broken, model="m")) is None
        assert isinstance(nodes.chooser.refusal(Asked(policy=broken, model="m")), Refusal)
        assert nodes.chooser.find(Asked(policy=POLICY, model="m")) is not None


def test_a_model_is_offered_where_a_permitted_node_names_it_able_or_not():
    nodes = fleet(1, accepting=False)
    assert nodes.chooser.find(Asked(policy=POLICY, model="m")) is None
    assert nodes.chooser.is_offered(Asked(policy=POLICY, model="m", narrowing=Narrowing(region="us")))
    assert not nodes.chooser.is_offered(Asked(policy=POLICY, model="n"))
    assert not nodes.chooser.is_offered(Asked(policy=Policy("org_b", Fleet.ANY), model="m"))
    assert not nodes.chooser.is_offered(Asked(policy=None, model="m"))


def test_cold_nodes_that_fit_and_are_permitted_are_found_to_spread_a_model():
    nodes = fleet(3)
    for number in range(3, 9):
        facts = NodeFacts(
            f"n{number}", "org_b" if number > 6 else "org_a", "eu", True, TrustClass.TRUSTED, Sharing()
        )
        nodes.put(facts, {"m": {"model_state": ModelState.COLD, "fits": number != 4}})
    asked = Asked(policy=POLICY, model="m")
    assert {each.facts.node_id for each in nodes.chooser.find_cold(asked, 10)} == {"n3", "n5", "n6"}
    assert len(nodes.chooser.find_cold(asked, 2)) <= 2
    assert nodes.chooser.find_cold(replace(asked, policy=None), 10) == []


def test_a_place_that_is_held_already_does_not_make_its_node_full():
    nodes = fleet(1, in_flight=16)
    asked = Asked(policy=POLICY, model="m")
    assert nodes.chooser.find(asked) is None
    assert nodes.chooser.is_still_able(asked, "n0") is not None
    assert nodes.chooser.is_still_able(replace(asked, policy=Policy("org_b")), "n0") is None
    assert nodes.chooser.is_still_able(asked, "gone") is None
    assert fleet(1, in_flight=17).chooser.is_still_able(asked, "n0") is None, "it holds one place, not two"


@pytest.mark.parametrize(
    "now",
    [
        {"facts": NodeFacts("n0", "org_b", "eu", True, TrustClass.TRUSTED, Sharing())},
        {"facts": NodeFacts("n0", "org_a", "us", True, TrustClass.TRUSTED, Sharing())},
        {"model_state": None},
        None,
    ],
)
def test_what_is_offered_is_judged_by_what_is_known_now_and_not_by_where_it_was_filed(now):
    nodes = fleet(1)
    asked = Asked(policy=replace(POLICY, regions=frozenset({"eu"})), model="m")
    assert nodes.chooser.is_offered(asked)
    assert [each.node_ids for each in nodes.chooser.offered(asked.policy)] == [("n0",)]
    nodes.known["n0"]["m"] = None if now is None else replace(nodes.known["n0"]["m"], **now)
    assert not nodes.chooser.is_offered(asked)
    if now is None or "facts" in now:
        assert [each.node_ids for each in nodes.chooser.offered(asked.policy)] == [()]


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
