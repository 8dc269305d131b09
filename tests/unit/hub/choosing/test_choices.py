"""What the chooser is for: conversations come back, requests spread, and what is not able is passed over."""

from dataclasses import replace

import pytest

from hub.affinity import position
from hub.choosing import Asked
from hub.policy import Fleet, Narrowing, NodeFacts, Policy, Sharing, TrustClass
from hub.router import ModelState, Refusal
from tests.unit.hub.choosing.nodes import POLICY, Nodes


def fleet(count, **condition):
    nodes = Nodes()
    for number in range(count):
        facts = NodeFacts(f"n{number}", "org_a", "eu", True, TrustClass.TRUSTED, Sharing())
        nodes.put(facts, {"m": {"model_state": ModelState.READY, "slots": 4, **condition}})
    return nodes


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
