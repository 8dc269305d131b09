"""Ranks, shifts and the correction for many figures, held to counting all cases and to drawing many."""

import random
from itertools import combinations
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.differences import (
    corrected,
    difference,
    least_p,
    p_more,
    p_value,
    ratio,
)

FEW = st.lists(st.integers(0, 6).map(float), min_size=1, max_size=5)
POSITIVE = st.lists(st.floats(0.1, 1000), min_size=4, max_size=8)


def pairs_won(first: list[float], second: list[float]) -> float:
    return sum((after > before) + (after == before) / 2 for before in first for after in second)


@given(FEW, FEW)
def test_the_chance_is_that_of_all_ways_to_deal_the_values_out(
    first: list[float], second: list[float]
) -> None:
    every, seen = [*first, *second], pairs_won(first, second)
    dealt = 0
    for chosen in combinations(range(len(every)), len(second)):
        others = [every[index] for index in range(len(every)) if index not in chosen]
        dealt += pairs_won(others, [every[index] for index in chosen]) >= seen
    assert p_more(first, second) == pytest.approx(dealt / comb(len(every), len(second)))


def test_the_smallest_chance_is_reached_where_all_lies_apart() -> None:
    for first, second in ((3, 3), (4, 5), (7, 7)):
        apart = p_value(list(range(first)), [100 + value for value in range(second)])
        assert apart == pytest.approx(least_p(first, second))
    assert least_p(1, 1) == 1.0


@given(FEW)
def test_a_sample_is_not_other_than_itself(values: list[float]) -> None:
    assert p_value(values, values) == 1.0


@pytest.mark.parametrize("count", [20, 21, 100])
def test_the_normal_form_goes_on_where_the_exact_one_ends(count: int) -> None:
    chance = random.Random(3)
    first = [chance.gauss(100, 5) for _ in range(count)]
    second = [chance.gauss(103, 5) for _ in range(20)]
    again = [*first, *second]
    drawn = 4000
    seen, as_far = pairs_won(first, second), 0
    for _ in range(drawn):
        chance.shuffle(again)
        as_far += pairs_won(again[: len(first)], again[len(first) :]) >= seen if count < 100 else 0
    if count < 100:
        assert p_more(first, second) == pytest.approx(as_far / drawn, abs=0.01)
    else:
        assert p_more(first, second) < 0.05


@given(POSITIVE, POSITIVE)
def test_the_interval_leaves_out_no_change_where_the_test_does(
    first: list[float], second: list[float]
) -> None:
    if len({*first, *second}) < len(first) + len(second):
        return  # with ties the test is exact and the interval a little wide
    for shift, none in ((ratio(first, second), 1.0), (difference(first, second), 0.0)):
        assert shift.low is not None
        assert shift.high is not None
        assert shift.low <= shift.middle <= shift.high
        assert (p_value(first, second) <= 0.05) == (not shift.low <= none <= shift.high)


def test_three_rounds_have_no_interval_at_95_percent() -> None:
    assert ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]).low is None
    assert ratio([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], confidence=0.8).low is not None


def test_a_known_factor_is_in_its_interval_as_often_as_is_said() -> None:
    chance, runs = random.Random(5), 400
    held = 0
    for _ in range(runs):
        first = [chance.lognormvariate(0, 0.05) for _ in range(9)]
        shift = ratio(first, [1.1 * chance.lognormvariate(0, 0.05) for _ in range(9)])
        assert shift.low is not None
        assert shift.high is not None
        held += shift.low <= 1.1 <= shift.high
    assert 0.93 <= held / runs <= 0.99


def test_a_ratio_is_of_what_is_over_nothing() -> None:
    with pytest.raises(ValueError, match="over 0"):
        ratio([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="empty"):
        p_more([], [1.0])


def test_the_correction_is_the_published_one() -> None:
    # Benjamini and Hochberg 1995, section 3.2: fifteen p-values, of which four are called at 5 %.
    published = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
        0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    assert sum(value <= 0.05 for value in corrected(published)) == 4
    assert corrected([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_the_correction_only_raises_and_keeps_the_order(chances: list[float]) -> None:
    found = corrected(chances)
    assert all(before <= after <= 1 for before, after in zip(chances, found, strict=True))
    by_chance = [after for _, after in sorted(zip(chances, found, strict=True))]
    assert by_chance == sorted(by_chance)
