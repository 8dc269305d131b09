"""Percentiles and intervals against definitions that are slow and plain."""

import random
import statistics as standard

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.statistics import bootstrap_median, median, percentile, summarise

numbers = st.floats(-1e6, 1e6, allow_nan=False, width=32)
samples = st.lists(numbers, min_size=1, max_size=60)


@given(st.lists(numbers, min_size=2, max_size=60))
def test_percentiles_are_the_inclusive_quantiles_of_the_standard_library(values: list[float]) -> None:
    cuts = standard.quantiles(values, n=100, method="inclusive")
    for percent in range(1, 100):
        assert percentile(values, percent) == pytest.approx(cuts[percent - 1], rel=1e-9, abs=1e-6)


@given(samples)
def test_the_median_is_the_standard_library_s(values: list[float]) -> None:
    assert median(values) == pytest.approx(standard.median(values))


@given(samples, st.floats(0, 100), st.floats(0, 100))
def test_percentiles_grow_and_stay_in_range(values: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    assert min(values) <= percentile(values, low) <= percentile(values, high) <= max(values)


@given(samples, st.randoms())
def test_a_summary_does_not_see_the_order(values: list[float], chance: random.Random) -> None:
    assert summarise(values) == summarise(chance.sample(values, len(values)))


@given(samples)
def test_a_summary_s_mean_lies_within_its_range(values: list[float]) -> None:
    summary = summarise(values)
    assert summary is not None
    assert summary.minimum <= summary.mean <= summary.maximum
    assert summary.mean == pytest.approx(standard.fmean(values), abs=1e-6)
    assert (summary.count, summary.minimum, summary.maximum) == (len(values), min(values), max(values))


def test_nothing_has_no_summary_and_no_percentile() -> None:
    assert summarise([]) is None
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


@pytest.mark.parametrize("percent", [-1, 101])
def test_a_percentile_outside_a_hundred_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="outside"):
        percentile([1.0], percent)


@given(st.lists(numbers, min_size=1, max_size=15), st.integers(0, 1000))
def test_an_interval_holds_its_median_within_the_range_and_repeats(values: list[float], seed: int) -> None:
    interval = bootstrap_median(values, seed=seed, resamples=200)
    assert interval == bootstrap_median(values, seed=seed, resamples=200)
    assert min(values) <= interval.low <= interval.high <= max(values)
    assert interval.median == median(values)


def test_an_interval_narrows_where_rounds_agree() -> None:
    agreeing = bootstrap_median([1.0, 1.01, 0.99, 1.0, 1.0, 1.02, 0.98, 1.0], seed=1)
    scattered = bootstrap_median([0.5, 1.5, 0.7, 1.3, 1.0, 1.9, 0.2, 1.0], seed=1)
    assert agreeing.high - agreeing.low < scattered.high - scattered.low


def test_one_outlier_does_not_move_the_interval_away() -> None:
    interval = bootstrap_median([1.0] * 9 + [9.0], seed=0)
    assert (interval.low, interval.median, interval.high) == (1.0, 1.0, 1.0)
