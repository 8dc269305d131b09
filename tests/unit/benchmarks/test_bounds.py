"""Figures against their bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.bounds import Bound, Verdict, scaled
from benchmarks.figures.statistics import Interval


def interval(low: float, high: float, *, rounds: int = 10) -> Interval:
    return Interval((low + high) / 2, low, high, 0.95, (low,) * rounds)


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        (Bound(1.15), 1.0, 1.15, Verdict.KEPT),
        (Bound(1.15), 1.1, 1.2, Verdict.UNCLEAR),
        (Bound(1.15), 1.16, 1.2, Verdict.MISSED),
        (Bound(0.97, at_least=True), 0.97, 1.01, Verdict.KEPT),
        (Bound(0.97, at_least=True), 0.96, 0.98, Verdict.UNCLEAR),
        (Bound(0.97, at_least=True), 0.90, 0.96, Verdict.MISSED),
    ],
)
def test_an_interval_must_lie_wholly_on_one_side(
    bound: Bound, low: float, high: float, verdict: Verdict
) -> None:
    assert bound.judge(interval(low, high)) is verdict


def test_a_few_rounds_say_nothing() -> None:
    assert Bound(2.0).judge(interval(1.0, 1.0, rounds=4)) is Verdict.UNCLEAR
    assert Bound(2.0).judge(interval(1.0, 1.0, rounds=5)) is Verdict.KEPT


@given(st.floats(0, 10), st.floats(0, 10), st.booleans())
def test_a_single_figure_is_kept_or_missed(limit: float, value: float, at_least: bool) -> None:
    keeps = value >= limit if at_least else value <= limit
    assert Bound(limit, at_least=at_least).judge(value) is (Verdict.KEPT if keeps else Verdict.MISSED)


def test_an_interval_in_another_unit() -> None:
    found = scaled(interval(0.001, 0.003), 1000)
    assert found is not None
    assert (found.low, found.median, found.high, found.count) == (1.0, 2.0, 3.0, 10)
    assert found.values == (1.0,) * 10
    assert scaled(None, 1000) is None
