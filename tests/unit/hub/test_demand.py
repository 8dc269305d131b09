"""When one more node is to load a model: not for a moment's burst, not twice at once, not for nobody."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.choosing import Asked
from hub.demand import HOT_WAIT_S, MAX_OF_ONE, MAX_UNDER_WAY, RETRY_S, USUAL_TOKENS, Demand
from hub.policy import Fleet, Narrowing, NodeFacts, Policy
from hub.router import Candidate, ModelState, estimated_wait_s

FACTS = NodeFacts("n", "org_a", None, False, None, None)
FREE = Candidate(FACTS, ModelState.READY, slots=4)
BUSY = Candidate(FACTS, ModelState.READY, slots=4, in_flight=12, tokens_per_second=32.0)
ASKED = Asked(policy=Policy("org_a"), model="m")


@pytest.fixture
def demand():
    return Demand(10.0)


def watch(demand, seconds, chosen, *, begin=0.0, asked=ASKED, rate=2):
    """So many requests a second; returns when the last came."""
    times = [begin + number / rate for number in range(int(seconds * rate) + 1)]
    for now in times:
        demand.asked(asked, "key", chosen, now)
    return times[-1]


def wished(demand, now, under_way=()):
    return [wish.model for wish in demand.wishes(under_way, now)]


def test_the_examples_are_what_they_are_said_to_be():
    assert estimated_wait_s(FREE, USUAL_TOKENS) == 0
    assert estimated_wait_s(BUSY, USUAL_TOKENS) > HOT_WAIT_S


@pytest.mark.parametrize("chosen", [BUSY, None], ids=["a long wait", "a queue"])
def test_a_model_that_is_waited_for_long_enough_is_wished_for_once(demand, chosen):
    watch(demand, 9, chosen)
    assert wished(demand, 9) == []
    now = watch(demand, 2, chosen, begin=9.5)
    (wish,) = demand.wishes((), now)
    assert (wish.asked, wish.source, wish.organisation_id) == (ASKED, "key", "org_a")
    demand.granted(wish)
    assert wished(demand, now) == []
    now = watch(demand, 9, chosen, begin=now + 1)
    assert wished(demand, now) == [], "whether it was enough has to show"
    now = watch(demand, 3, chosen, begin=now + 1)
    assert wished(demand, now) == ["m"]


def test_a_burst_is_no_demand(demand):
    watch(demand, 3, BUSY)
    now = watch(demand, 20, FREE, begin=3.5)
    assert wished(demand, now) == []
    now = watch(demand, 3, BUSY, begin=now + 60)
    assert wished(demand, now + 20) == []


def test_it_takes_more_than_a_free_slot_now_and_then_to_cool_off(demand):
    for second in range(12):
        watch(demand, 0.5, BUSY, begin=second, rate=8)
        demand.asked(ASKED, "key", FREE, second + 0.9)
    assert wished(demand, 12) == ["m"]


def test_a_demand_that_has_ended_is_not_met_any_more(demand):
    now = watch(demand, 20, BUSY)
    assert wished(demand, now) == ["m"]
    assert wished(demand, now + RETRY_S / 2) == []
    assert wished(demand, now + 2 * RETRY_S) == []
    assert demand._heats == {}


def test_where_nobody_could_be_asked_it_is_tried_again_later(demand):
    now = watch(demand, 12, BUSY)
    (wish,) = demand.wishes((), now)
    demand.in_vain(wish, now)
    now = watch(demand, RETRY_S - 2, BUSY, begin=now + 1)
    assert wished(demand, now) == []
    now = watch(demand, 3, BUSY, begin=now)
    assert wished(demand, now) == ["m"]


def test_whoever_may_ask_no_more_is_forgotten(demand):
    now = watch(demand, 12, BUSY)
    (wish,) = demand.wishes((), now)
    demand.drop(wish)
    assert wished(demand, now) == []


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        (replace(ASKED, narrowing=Narrowing(node_id="n")), None),
        (replace(ASKED, policy=None), None),
        (ASKED, Candidate(FACTS, ModelState.WARMING, in_flight=3)),
        (ASKED, Candidate(FACTS, ModelState.COLD)),
    ],
    ids=["held to a node", "no policy", "being loaded", "about to be loaded"],
)
def test_what_no_other_node_could_help_is_no_demand(demand, asked, chosen):
    assert wished(demand, watch(demand, 20, chosen, asked=asked)) == []


def test_zero_patience_wishes_for_nothing():
    demand = Demand(0.0)
    assert wished(demand, watch(demand, 60, None)) == []


def test_those_with_other_rights_are_another_demand(demand):
    theirs = replace(ASKED, policy=Policy("org_b", Fleet.ANY))
    abroad = replace(ASKED, narrowing=Narrowing(region="eu"))
    for asked in (ASKED, theirs, abroad):
        watch(demand, 12, None, asked=asked)
    assert {wish.asked for wish in demand.wishes((), 12)} <= {ASKED, theirs, abroad}
    assert len(demand.wishes((), 12)) == MAX_OF_ONE, "of one model no more at once"


def test_where_most_wait_is_first(demand):
    watch(demand, 12, None, asked=replace(ASKED, model="little", policy=Policy("org_b")), rate=1)
    watch(demand, 12, None, asked=replace(ASKED, model="much"), rate=10)
    assert wished(demand, 12) == ["much", "little"]


def test_loads_under_way_are_capped(demand):
    for number in range(20):
        watch(demand, 12, None, asked=replace(ASKED, model=f"m{number}", policy=Policy(f"org_{number}")))
    assert len(wished(demand, 12)) == MAX_UNDER_WAY
    others = [(f"x{number}", f"y{number}") for number in range(MAX_UNDER_WAY - 1)]
    assert len(wished(demand, 12, others)) == 1
    assert "m3" not in wished(demand, 12, [("m3", "org_x")] * MAX_OF_ONE)
    assert "m3" not in wished(demand, 12, [("x", "org_3"), ("y", "org_3")])


def test_the_usual_length_follows_what_is_answered(demand):
    assert demand.typical_tokens("m") == USUAL_TOKENS
    demand.answered("m", 0)
    assert demand.typical_tokens("m") == USUAL_TOKENS, "an answer that failed says nothing"
    for _ in range(200):
        demand.answered("m", 20)
    assert demand.typical_tokens("m") == pytest.approx(20)
    for _ in range(200):
        demand.answered("m", 400)
    assert demand.typical_tokens("m") == pytest.approx(400, rel=0.01)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=60))
def test_a_wish_means_that_somebody_waited_within_its_time(steps):
    demand, now, last_wait = Demand(10.0), 0.0, None
    for waits, pause in steps:
        now += pause
        demand.asked(ASKED, "key", None if waits else FREE, now)
        last_wait = now if waits else last_wait
        if demand.wishes((), now):
            assert last_wait is not None
            assert now - last_wait <= 10, "most had to wait lately"
            assert now >= 10
