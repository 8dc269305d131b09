"""What lists show of models, counted from the index, against a look at every node."""

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.choosing import Chooser
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
from hub.router import COLD, FULL, WARMING, Candidate, ModelState, grade
from hub.tallies import Tally

TREE = RegionTree({"eu": None, "eu-de": "eu", "us": None})
MODELS = ("a", "b/c", "d")


class Fleets:
    """Nodes and their index, drawn by chance."""

    regions, is_reading = TREE, False

    def __init__(self, seed, count):
        chance = random.Random(seed)
        self.known, self.index = {}, OfferIndex()
        self.chooser = Chooser(self.index, self)
        for number in range(count):
            self.add(f"n{number}", chance)

    def add(self, name, chance):
        facts = NodeFacts(
            name,
            chance.choice(["org_a", "org_b"]),
            chance.choice(["eu", "eu-de", "us", None]),
            chance.random() < 0.8,
            chance.choice(list(TrustClass)),
            Sharing(chance.choice(list(SharingKind)), frozenset({"org_a"})),
            chance.random() < 0.1,
        )
        offers = {
            model: Candidate(
                facts,
                chance.choice(list(ModelState)),
                fits=chance.random() < 0.7,
                in_flight=chance.choice([0, 0, 3, 40]),
                accepting=chance.random() < 0.8,
            )
            for model in chance.sample(MODELS, chance.randrange(4))
        }
        self.known[name] = offers
        self.index.file(facts, {model: grade(each) for model, each in offers.items()})

    def candidate(self, node_id, model):
        return self.known.get(node_id, {}).get(model)

    def own(self, _organisation_id):
        return self.known

    def refile(self, _node_id, _model):
        raise AssertionError("a list moves nothing")

    def permitted(self, policy, narrowing, model):
        """The nodes that offer a model and that the policy permits, by their grades."""
        return {
            name: grade(offers[model])
            for name, offers in self.known.items()
            if model in offers and permits(policy, offers[model].facts, TREE, narrowing)
        }


def kind(place):
    ways = ((WARMING, "ready"), (COLD, "warming"), (COLD + 1, "cold"), (FULL + 1, "full"))
    return next((name for end, name in ways if place < end), "unable")


POLICIES = st.builds(
    Policy,
    st.just("org_a"),
    st.sampled_from(Fleet),
    st.sampled_from([frozenset(), frozenset({"eu"}), frozenset({"us", "mars"})]),
    st.sampled_from(TrustClass),
)


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(0, 40), POLICIES, st.sampled_from([None, "eu-de"]))
def test_it_counts_what_the_policy_permits_and_names_the_readiest(seed, count, policy, region):
    fleets, narrowing = Fleets(seed, count), Narrowing(region=region)
    offered = {each.model: each for each in fleets.chooser.offered(policy, narrowing, most=5)}
    expected = {model: fleets.permitted(policy, narrowing, model) for model in MODELS}
    assert set(offered) == {model for model, found in expected.items() if found}
    for model, each in offered.items():
        grades = expected[model]
        assert set(each.node_ids) <= set(grades)
        assert len(each.node_ids) == min(5, len(grades))
        best = sorted(grades.values())[: len(each.node_ids)]
        assert [grades[name] for name in each.node_ids] == best
        if policy.fleet is Fleet.OWN:
            counted = Counter(map(kind, grades.values()))
            assert each.tally == Tally(**counted)
            assert each.tally.nodes == len(grades)
        assert list(fleets.chooser.offered(policy, narrowing, model=model, most=5)) == [each]


@settings(max_examples=150)
@given(
    st.integers(0, 2**32),
    st.integers(0, 40),
    POLICIES,
    st.sampled_from([Narrowing(), Narrowing(region="eu-de"), Narrowing(node_id="n3")]),
)
def test_it_gives_each_permitted_node_of_a_model_once_as_it_is_now(seed, count, policy, narrowing):
    fleets = Fleets(seed, count)
    offering = dict(fleets.chooser.offering(policy, narrowing))
    expected = {model: fleets.permitted(policy, narrowing, model) for model in MODELS}
    assert list(offering) == [model for model in MODELS if expected[model]]
    for model, found in offering.items():
        assert sorted(each.facts.node_id for each in found) == sorted(expected[model])
        assert all(each is fleets.known[each.facts.node_id][model] for each in found)
        assert dict(fleets.chooser.offering(policy, narrowing, model=model)) == {model: found}


def test_no_policy_and_one_that_makes_no_sense_are_offered_nothing():
    fleets = Fleets(1, 40)
    assert list(fleets.chooser.offered(None)) == []
    assert list(fleets.chooser.offered(Policy("org_a", fleet="own"))) == []
    assert list(fleets.chooser.offered(Policy(""))) == []
    assert list(fleets.chooser.offered(Policy("org_a"), model="none")) == []
    for policy in (None, Policy("org_a", fleet="own"), Policy("")):
        assert list(fleets.chooser.offering(policy)) == []
    assert list(fleets.chooser.offering(Policy("org_a"), model="none")) == []
