"""What a choice and a list cost does not grow with what a key may not use: else a clock would tell of it.

Counted are the calls that are made, in Python and out of it: as many on every machine, however busy.
"""

import gc
import sys

import pytest

from hub.choosing import Asked
from hub.policy import Fleet, Narrowing, NodeFacts, Policy, Sharing, SharingKind, TrustClass
from hub.router import ModelState
from tests.unit.hub.choosing.nodes import Nodes

CONDITIONS = [
    {"model_state": ModelState.READY},
    {"model_state": ModelState.READY, "in_flight": 16},
    {"model_state": ModelState.WARMING},
    {"model_state": ModelState.COLD},
    {"model_state": ModelState.COLD, "fits": False},
    {"model_state": None, "reported": False},
]
SHARINGS = [Sharing(), Sharing(SharingKind.ORGANISATIONS, frozenset({"org_c"}))]
MINE = Policy("org_a", Fleet.ANY)
NOTICED = 60
"""Calls that one look more into a table may cost, microseconds in all: far fewer than one node would."""


def theirs(count):
    """So many nodes of another organisation for each condition, and as many models that nobody else has."""
    nodes = Nodes()
    for number in range(count * len(CONDITIONS)):
        region = ("eu", "eu-de", "us", None)[number % 4]
        facts = NodeFacts(f"b{number}", "org_b", region, True, TrustClass.TRUSTED, SHARINGS[number % 2])
        condition = CONDITIONS[number % len(CONDITIONS)]
        nodes.put(facts, {"m": condition, "n": condition})
        if condition.get("reported", True):
            nodes.index.grade(facts.node_id, f"theirs-{number}", 0)
    return nodes


def of_mine(nodes):
    """The same with one node of the key's own."""
    facts = NodeFacts("a", "org_a", "eu", True, TrustClass.TRUSTED, Sharing())
    nodes.put(facts, {"n": CONDITIONS[0]})
    return nodes


ASKED = {
    "any": Asked(policy=MINE, model="m"),
    "in a region": Asked(policy=MINE, model="m", narrowing=Narrowing(region="eu")),
    "of a node": Asked(policy=MINE, model="m", narrowing=Narrowing(node_id="b0")),
    "in a conversation": Asked(policy=MINE, model="m", affinity=77),
}
ACTS = {
    "find": lambda chooser, asked: chooser.find(asked),
    "refusal": lambda chooser, asked: chooser.refusal(asked),
    "is_passing": lambda chooser, asked: chooser.is_passing(asked),
    "is_offered": lambda chooser, asked: chooser.is_offered(asked),
    "find_cold": lambda chooser, asked: chooser.find_cold(asked, 8),
    "offered": lambda chooser, asked: list(chooser.offered(asked.policy, asked.narrowing)),
    "offering": lambda chooser, asked: list(chooser.offering(asked.policy, asked.narrowing)),
    "one offered": lambda chooser, asked: list(chooser.offered(asked.policy, model=asked.model)),
    "one offering": lambda chooser, asked: list(chooser.offering(asked.policy, model=asked.model)),
}


def cost(nodes, act, asked):
    """The calls of one act, once what is remembered for all is remembered."""
    act(nodes.chooser, asked)
    made = 0

    def note(_frame, event, _detail):
        nonlocal made
        made += event in ("call", "c_call")

    before = sys.getprofile()
    gc.disable()  # what is thrown away elsewhere in the process would be counted where it is noticed
    sys.setprofile(note)
    try:
        act(nodes.chooser, asked)
    finally:
        sys.setprofile(before)
        gc.enable()
    return made


@pytest.mark.parametrize("mine", [False, True])
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("act", ACTS)
def test_it_costs_as_much_whatever_others_have(act, asked, mine):
    costs = []
    for count in (0, 1, 40):
        nodes = of_mine(theirs(count)) if mine else theirs(count)
        nodes.own = lambda organisation: ["a"] if mine and organisation == "org_a" else []
        costs.append(cost(nodes, ACTS[act], ASKED[asked]))
    nobody, one, many = costs
    assert one == many
    assert abs(one - nobody) < NOTICED


@pytest.mark.parametrize("act", ["offered", "offering"])
def test_what_is_gone_costs_nothing_any_more(act):
    """Nor is it kept: names of models come and go for as long as a Hub runs."""
    never, gone = Nodes(), Nodes()
    facts = NodeFacts("a", "org_a", "eu", True, TrustClass.TRUSTED, Sharing())
    gone.put(facts, {})
    for number in range(50):
        gone.index.grade("a", f"tried-{number}", 0)
        gone.index.grade("a", f"tried-{number}", None)
    for number in range(50):
        gone.index.grade("a", f"had-{number}", 0)
    gone.index.remove("a")
    costs = [cost(nodes, ACTS[act], ASKED["any"]) for nodes in (never, gone)]
    assert costs[0] == costs[1]
