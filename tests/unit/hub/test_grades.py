"""The coarse order in which the index keeps nodes agrees with the exact one, up to both its ends."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.policy import NodeFacts, Sharing, TrustClass
from hub.router import (
    COLD,
    FREE,
    FULL,
    OCTAVES,
    PENDING,
    QUEUE_PER_SLOT,
    QUEUED,
    UNABLE,
    WARMING,
    Candidate,
    ModelState,
    delay,
    grade,
    is_within_bound,
    rank,
    why_unable,
)

FACTS = NodeFacts("n1", "org_a", "eu", region_confirmed=True, trust=TrustClass.TRUSTED, sharing=Sharing())
SLOWEST, FASTEST = 1.0, 512.0


def candidate(state=ModelState.READY, *, draining=False, **condition):
    return Candidate(replace(FACTS, draining=draining), state, **condition)


CANDIDATES = st.builds(
    candidate,
    st.sampled_from([None, *ModelState]),
    fits=st.booleans(),
    in_flight=st.integers(0, 40),
    slots=st.integers(0, 64),
    accepting=st.booleans(),
    draining=st.sampled_from([False, False, True]),
    tokens_per_second=st.one_of(st.none(), st.floats()),
    reported=st.booleans(),
    online=st.booleans(),
)


@given(CANDIDATES, CANDIDATES)
def test_a_lower_grade_is_never_worse_in_the_exact_order(one, other):
    if why_unable(one) is None and why_unable(other) is None and grade(one) < grade(other):
        assert rank(one, "")[:3] <= rank(other, "")[:3]


@given(CANDIDATES)
def test_only_who_is_able_has_a_grade_up_to_cold(one):
    found = grade(one)
    assert (found is not None and found <= COLD) == (why_unable(one) is None)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (candidate(in_flight=QUEUE_PER_SLOT), FULL),
        (candidate(reported=False), PENDING),
        (candidate(accepting=False), UNABLE),
        (candidate(draining=True), UNABLE),
        (candidate(None, draining=True), None),
        (candidate(None, draining=True, reported=False), None),
        (candidate(ModelState.COLD, fits=False), UNABLE),
        (candidate(None), None),
        (candidate(online=False), None),
        (candidate(ModelState.COLD), COLD),
    ],
)
def test_who_is_not_able_stands_by_the_reason(one, expected):
    assert grade(one) == expected


def test_the_emptiest_of_all_is_the_first_and_the_most_crowded_the_last_of_its_kind():
    assert grade(candidate(slots=10**9, tokens_per_second=FASTEST)) == FREE
    crowded = {"in_flight": QUEUE_PER_SLOT - 1, "slots": 1, "tokens_per_second": SLOWEST}
    assert grade(candidate(ModelState.WARMING, **crowded)) == WARMING + OCTAVES - 1
    assert QUEUED < grade(candidate(**crowded)) < WARMING


def test_a_cold_node_keeps_nobody_waiting_by_its_load():
    assert delay(candidate(ModelState.COLD, slots=7, tokens_per_second=3.0)) == (0.0, 0.0)


def test_a_node_that_says_nothing_of_slots_has_one():
    assert delay(candidate(slots=0)) == delay(candidate(slots=1))


@pytest.mark.parametrize("lie", [1e9, float("inf"), float("nan"), -5.0, 0.0])
def test_a_speed_that_is_none_counts_as_the_slowest(lie):
    assert delay(candidate(tokens_per_second=lie)) == delay(candidate(tokens_per_second=SLOWEST))
    assert delay(candidate(tokens_per_second=FASTEST)) < delay(candidate(tokens_per_second=SLOWEST))


@pytest.mark.parametrize(
    ("favourite", "best", "within"),
    [
        (None, None, False),
        (None, FREE, False),
        (FREE, None, False),
        (FREE + 1, FREE, True),
        (FREE + 2, FREE, False),
        (QUEUED - 1, QUEUED - 2, True),
        (QUEUED, QUEUED, True),
        (QUEUED, QUEUED - 1, False),
        (QUEUED + 1, QUEUED, False),
    ],
)
def test_a_conversation_goes_home_only_where_it_waits_no_octave_longer(favourite, best, within):
    assert is_within_bound(favourite, best) is within
