"""Intervals of runs whose requests depend on each other: they hold what they say."""

import random
from collections.abc import Callable, Sequence
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.blocks import draw, mean_interval, percentile_intervals, ratio_interval
from benchmarks.figures.statistics import Interval, percentile


def wandering(seed: int, count: int) -> list[float]:
    """Values of mean 0, each of which keeps most of the one before, as waits in a queue do."""
    chance, value, values = random.Random(seed), 0.0, []
    for _ in range(count):
        value = 0.8 * value + chance.gauss(0, 1)
        values.append(value)
    return values


def cut(values: Sequence[float], count: int) -> list[list[float]]:
    size = len(values) // count
    return [list(values[number * size : (number + 1) * size]) for number in range(count)]


def how_often_true(blocks: int, of: Callable[[list[list[float]]], Interval | None]) -> float:
    found = [of(cut(wandering(seed, 300), blocks)) for seed in range(80)]
    return fmean(interval is not None and interval.low <= 0 <= interval.high for interval in found)


def test_an_interval_of_blocks_holds_the_truth_where_one_of_single_values_does_not() -> None:
    draws = draw(15, seed=1, draws=150)
    assert how_often_true(15, lambda blocks: mean_interval(blocks, draws)) >= 0.85
    assert how_often_true(15, lambda blocks: percentile_intervals(blocks, [50], draws)[50]) >= 0.85
    alone = draw(300, seed=1, draws=150)
    assert how_often_true(300, lambda blocks: mean_interval(blocks, alone)) <= 0.6


blocks = st.lists(st.lists(st.floats(0, 1e6), max_size=8), min_size=1, max_size=12)


@given(blocks, st.sampled_from([0.0, 50.0, 90.0, 99.9, 100.0]))
def test_the_figure_is_that_of_all_samples_and_lies_within(found: list[list[float]], percent: float) -> None:
    draws = draw(len(found), seed=0, draws=20)
    pooled = [value for block in found for value in block]
    filled = [block for block in found if block]
    intervals = percentile_intervals(found, [percent], draws)
    mean = mean_interval(found, draws)
    if len(filled) < 5:
        assert (intervals, mean) == ({}, None)
        return
    assert mean is not None
    assert mean.median == pytest.approx(fmean(pooled))
    assert intervals[percent].median == percentile(pooled, percent)
    for interval in (mean, intervals[percent]):
        assert interval.low <= interval.median <= interval.high
        assert interval.count == len(filled)
    assert intervals[percent].values == tuple(percentile(block, percent) for block in filled)


def test_a_drawn_percentile_is_that_of_the_drawn_blocks_put_together() -> None:
    chance = random.Random(4)
    found = [[chance.expovariate(1) for _ in range(700)] for _ in range(8)]
    draws = draw(8, seed=2, draws=200)
    together = [
        [value for block, times in zip(found, counts, strict=True) for value in block * times]
        for counts in draws.counts
    ]
    for percent, near in ((50.0, 0.01), (99.0, 0.001)):
        interval = percentile_intervals(found, [percent], draws)[percent]
        exact = sorted(percentile(values, percent) for values in together)
        assert interval.low == pytest.approx(percentile(exact, 2.5), rel=near)
        assert interval.high == pytest.approx(percentile(exact, 97.5), rel=near)


def test_a_rate_is_all_over_all() -> None:
    interval = ratio_interval([1, 2, 3, 4, 5], [1, 1, 1, 1, 2], draw(5, seed=0))
    assert interval is not None
    assert interval.median == 15 / 6
    assert interval.values == (1, 2, 3, 4, 2.5)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert draw(9, seed=3) == draw(9, seed=3) != draw(9, seed=4)
