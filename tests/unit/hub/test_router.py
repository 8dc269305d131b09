"""Selection: among the permitted only, the readiest, then the least loaded; and honest refusals."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.affinity import distance, position
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
    QUEUE_PER_SLOT,
    Candidate,
    ModelState,
    Reason,
    Refusal,
    RefusalCode,
    Selection,
    delay,
    estimated_wait_s,
    select_replica,
)

TREE = RegionTree({"eu": None, "eu-de": "eu", "us": None})
POLICY = Policy("org_a", regions=frozenset({"eu"}))


def node(name, **facts):
    known = {"owner_id": "org_a", "region": "eu-de", "region_confirmed": True, "trust": TrustClass.TRUSTED}
    return NodeFacts(node_id=name, **{**known, "sharing": Sharing(), **facts})


def candidate(name="n1", state=ModelState.READY, facts=None, **condition):
    return Candidate(facts or node(name), state, **condition)


def choose(*candidates, policy=POLICY, **more):
    return select_replica(policy, "m", candidates, TREE, **more)


def chosen(*candidates, **more):
    result = choose(*candidates, **more)
    assert isinstance(result, Selection), result
    return result.node_id


def refused(*candidates, **more):
    result = choose(*candidates, **more)
    assert isinstance(result, Refusal), result
    return result.code, dict(result.counts)


def test_ready_comes_before_warming_before_cold():
    cold, warming = candidate("c", ModelState.COLD), candidate("w", ModelState.WARMING)
    busy = candidate("r", running=3)
    assert chosen(cold, warming, busy) == "r"
    assert chosen(cold, warming) == "w"
    assert chosen(cold) == "c"


def test_load_is_what_others_had_there_and_what_we_have_per_slot():
    assert chosen(candidate("a", in_flight=2), candidate("b", running=1)) == "b"
    assert chosen(candidate("a", running=1, waiting=2), candidate("b", in_flight=2)) == "b"
    assert chosen(candidate("a", running=4, slots=8), candidate("b", running=1, slots=1)) == "a"


def test_what_was_sent_or_ended_since_the_report_counts_at_once():
    assert candidate(running=3, waiting=1, in_flight=4, in_flight_then=4).load == 4, "all of it is ours"
    assert candidate(running=3, waiting=1, in_flight=6, in_flight_then=4).load == 6, "two were sent since"
    assert candidate(running=3, waiting=1, in_flight=1, in_flight_then=4).load == 1, "three have ended since"
    assert candidate(running=3, waiting=1, in_flight=2, in_flight_then=1).load == 5, "three are others'"
    assert candidate(running=0, in_flight=2, in_flight_then=2).load == 2, "it had not heard of them yet"


def test_a_stale_report_herds_nobody():
    """Many requests come before the nodes report again: they do not all go where it was emptiest then."""
    sent = Counter()
    for turn in range(12):
        nodes = [candidate(name, running=1, in_flight=sent[name], slots=8) for name in "abc"]
        sent[chosen(*nodes, tie_break=str(turn))] += 1
    assert set(sent.values()) == {4}


def test_a_free_slot_goes_before_a_faster_node_where_one_would_wait():
    free = candidate("free", in_flight=3, slots=4, tokens_per_second=10.0)
    queued = candidate("queued", in_flight=4, slots=4, tokens_per_second=500.0)
    assert chosen(queued, free) == "free"


def test_where_all_wait_the_wait_is_the_shortest_for_the_speed():
    slow = candidate("slow", in_flight=4, slots=4, tokens_per_second=8.0)
    fast = candidate("fast", in_flight=7, slots=4, tokens_per_second=64.0)
    assert chosen(slow, fast) == "fast"
    assert estimated_wait_s(slow, 256) == 8.0
    assert estimated_wait_s(fast, 256) == 4.0
    assert estimated_wait_s(candidate(in_flight=3, slots=4), 256) == 0.0


def test_a_cold_model_that_was_just_asked_for_is_not_loaded_twice():
    """The node has not reported yet that it loads: the next request waits for the same load."""
    asked, idle = candidate("asked", ModelState.COLD, in_flight=2), candidate("idle", ModelState.COLD)
    assert chosen(asked, idle) == "asked"
    assert chosen(asked, idle, exclude=frozenset({"asked"})) == "idle"


def home_of(*nodes, affinity):
    return min((each.facts.node_id for each in nodes), key=lambda name: distance(position(name), affinity))


@pytest.mark.parametrize("affinity", range(0, 2**64, 2**60))
def test_a_conversation_goes_where_its_cache_is_while_it_is_not_much_more_crowded(affinity):
    nodes = [candidate(name, slots=8, in_flight=3) for name in "abcdef"]
    home = home_of(*nodes, affinity=affinity)
    others = [candidate(each.facts.node_id, slots=8, in_flight=2) for each in nodes]
    others = [each for each in others if each.facts.node_id != home]

    def at_home(load):
        return candidate(home, slots=8, in_flight=load)

    assert chosen(at_home(2), *others, affinity=affinity) == home
    assert chosen(at_home(6), *others, affinity=affinity) == home, "a slot is free, and others are used too"
    assert chosen(at_home(8), *others, affinity=affinity) != home, "it would have to wait"
    idle = [candidate(each.facts.node_id, slots=8) for each in others]
    assert chosen(at_home(4), *idle, affinity=affinity) != home, "all others stand idle"
    assert chosen(at_home(2), *others, affinity=affinity, exclude=frozenset({home})) != home


def test_where_all_wait_a_conversation_goes_home_for_less_than_twice_the_wait():
    others = [candidate(name, slots=4, in_flight=8) for name in "abc"]  # five quarters of a round are ahead
    at_home = [candidate("home", slots=4, in_flight=load) for load in (10, 11)]
    affinity = position("home")
    assert chosen(at_home[0], *others, affinity=affinity) == "home"
    assert chosen(at_home[1], *others, affinity=affinity) != "home"


@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(0, 2**64 - 1),
)
def test_affinity_costs_at_most_its_bound(loads, affinity):
    nodes = [candidate(f"n{i}", in_flight=load, slots=slots) for i, (load, slots) in enumerate(loads)]
    without, found = choose(*nodes), choose(*nodes, affinity=affinity)
    if isinstance(without, Selection):
        (least, emptiest), (wait, crowding) = delay(without.candidate), delay(found.candidate)
        assert wait == 0 if least == 0 else wait < 2 * least
        assert least > 0 or crowding < 4 * emptiest


def test_affinity_is_never_put_before_readiness_or_policy():
    affinity = position("home")
    assert chosen(candidate("home", ModelState.WARMING), candidate("a"), affinity=affinity) == "a"
    abroad = candidate(facts=node("home", region="us"))
    assert chosen(abroad, candidate("a"), affinity=affinity) == "a"
    assert refused(abroad, affinity=affinity)[0] is RefusalCode.NO_AVAILABLE_NODE


def test_a_full_ready_node_spills_over_to_a_cold_one():
    full = candidate("full", running=QUEUE_PER_SLOT)
    assert chosen(full, candidate("cold", ModelState.COLD)) == "cold"


def test_clearly_faster_goes_first_and_small_differences_do_not_count():
    quick, slow = candidate("q", tokens_per_second=120.0), candidate("s", tokens_per_second=20.0)
    assert chosen(quick, slow) == "q"
    peers = [candidate("a", tokens_per_second=100.0), candidate("b", tokens_per_second=110.0)]
    assert {chosen(*peers, tie_break=str(turn)) for turn in range(50)} == {"a", "b"}


def test_equals_are_spread_evenly_and_repeatably():
    nodes = [candidate(name) for name in "abcd"]
    picks = Counter(chosen(*nodes, tie_break=f"req_{turn}") for turn in range(2_000))
    assert min(picks.values()) > 350
    assert chosen(*nodes, tie_break="req_7") == chosen(*reversed(nodes), tie_break="req_7")


@pytest.mark.parametrize(
    ("one", "code", "reason"),
    [
        (candidate(online=False), RefusalCode.NO_AVAILABLE_NODE, Reason.OFFLINE),
        (candidate(facts=node("n", draining=True)), RefusalCode.NO_AVAILABLE_NODE, Reason.DRAINING),
        (candidate(facts=node("n", draining=None)), RefusalCode.NO_AVAILABLE_NODE, Reason.DRAINING),
        (
            candidate(facts=node("n", draining=True), online=False, state=None, reported=False),
            RefusalCode.NO_AVAILABLE_NODE,
            Reason.DRAINING,
        ),
        (
            candidate(facts=node("n", draining=True), waiting=QUEUE_PER_SLOT),
            RefusalCode.NO_AVAILABLE_NODE,
            Reason.DRAINING,
        ),
        (
            candidate(facts=node("n", draining=True, region="us")),
            RefusalCode.NO_AVAILABLE_NODE,
            Reason.REGION,
        ),
        (candidate(state=None, reported=False), RefusalCode.NO_AVAILABLE_NODE, Reason.UNREPORTED),
        (candidate(state=None), RefusalCode.NO_AVAILABLE_NODE, Reason.NOT_OFFERED),
        (candidate(accepting=False), RefusalCode.NO_AVAILABLE_NODE, Reason.PAUSED),
        (candidate(state=ModelState.COLD, fits=False), RefusalCode.NO_AVAILABLE_NODE, Reason.FIT),
        (candidate(waiting=QUEUE_PER_SLOT), RefusalCode.OVERLOADED, Reason.FULL),
        (candidate(facts=node("n", region="us")), RefusalCode.NO_AVAILABLE_NODE, Reason.REGION),
        (candidate(facts=node("n", region_confirmed=False)), RefusalCode.NO_AVAILABLE_NODE, Reason.REGION),
        (candidate(facts=node("n", trust=None)), RefusalCode.NO_AVAILABLE_NODE, Reason.TRUST),
        (candidate(facts=node("n", revoked=True)), RefusalCode.NO_AVAILABLE_NODE, Reason.REVOKED),
    ],
)
def test_the_reason_is_counted_among_the_callers_own_nodes(one, code, reason):
    assert refused(one) == (code, {reason: 1})


def test_only_what_passes_by_itself_is_worth_waiting_for():
    assert choose(candidate(waiting=QUEUE_PER_SLOT)).passing
    assert choose(candidate(state=None, reported=False)).passing
    for hopeless in (
        candidate(online=False, reported=False),
        candidate(state=None),
        candidate(accepting=False),
        candidate(facts=node("n", draining=True), waiting=QUEUE_PER_SLOT),
        candidate(facts=node("n", draining=True), state=None, reported=False),
        candidate(facts=node("n", region="us"), reported=False),
        candidate(facts=node("n", region="us"), waiting=QUEUE_PER_SLOT),
    ):
        assert not choose(hopeless).passing


def test_nothing_is_told_of_other_peoples_nodes():
    public = Sharing(SharingKind.PUBLIC)
    others = [
        candidate(facts=node("x", owner_id="org_b", sharing=public), online=False),
        candidate(facts=node("y", owner_id="org_b")),
    ]
    assert refused(*others, policy=replace(POLICY, fleet=Fleet.ANY)) == (RefusalCode.NO_AVAILABLE_NODE, {})
    assert refused(*others) == (RefusalCode.NO_AVAILABLE_NODE, {})


def test_a_full_node_that_is_not_permitted_does_not_make_it_overloaded():
    assert refused(candidate(facts=node("n", region="us"), running=99))[0] is RefusalCode.NO_AVAILABLE_NODE


def test_no_policy_refuses_everything():
    assert refused(candidate(), policy=None) == (RefusalCode.NO_AVAILABLE_NODE, {})


def test_nodes_tried_already_are_left_out():
    assert chosen(candidate("a"), candidate("b", running=3), exclude=frozenset({"a"})) == "b"
    assert refused(candidate("a"), exclude=frozenset({"a"}))[1] == {Reason.EXCLUDED: 1}


def test_a_request_may_narrow_to_a_node_or_a_region():
    both = [candidate("a"), candidate("b", facts=node("b", region="eu"))]
    assert chosen(*both, narrowing=Narrowing(node_id="b")) == "b"
    assert chosen(*both, narrowing=Narrowing(region="eu-de")) == "a"
    assert refused(*both, narrowing=Narrowing(region="us"))[1] == {Reason.NARROWED: 2}


FACTS = st.builds(
    NodeFacts,
    st.sampled_from("abcdef"),
    st.sampled_from(["org_a", "org_b"]),
    st.sampled_from(["eu", "eu-de", "us", "mars", None]),
    st.booleans(),
    st.none() | st.sampled_from(TrustClass),
    st.none() | st.builds(Sharing, st.sampled_from(SharingKind), st.frozensets(st.just("org_a"))),
    st.booleans(),
)
CANDIDATES = st.builds(
    Candidate,
    FACTS,
    st.none() | st.sampled_from(ModelState),
    fits=st.booleans(),
    in_flight=st.integers(0, 6),
    running=st.integers(0, 6),
    waiting=st.integers(0, 6),
    slots=st.integers(0, 2),
    accepting=st.booleans(),
    tokens_per_second=st.none() | st.floats(0, 1e4),
    online=st.booleans(),
)
POLICIES = st.none() | st.builds(
    Policy,
    st.just("org_a"),
    st.sampled_from(Fleet),
    st.frozensets(st.sampled_from(["eu", "us", "mars"]), max_size=2),
    st.sampled_from(TrustClass),
)


@settings(max_examples=300)
@given(POLICIES, st.lists(CANDIDATES, max_size=6), st.text(max_size=3))
def test_what_is_chosen_is_permitted_and_able_and_refusing_means_there_was_none(policy, candidates, salt):
    def able(each):
        return (
            permits(policy, each.facts, TREE).permitted
            and each.online
            and each.accepting
            and each.model_state is not None
            and (each.fits or each.model_state is not ModelState.COLD)
            and each.load < QUEUE_PER_SLOT * max(each.slots, 1)
        )

    result = choose(*candidates, policy=policy, tie_break=salt)
    if isinstance(result, Selection):
        assert able(result.candidate)
    else:
        assert not any(map(able, candidates))
        assert sum(result.counts.values()) == (
            0 if policy is None else sum(each.facts.owner_id == "org_a" for each in candidates)
        )
