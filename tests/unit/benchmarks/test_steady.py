"""Warm-up, steady state and overload, on runs whose truth is known."""

import heapq
import random
from collections.abc import Callable
from statistics import fmean

import pytest

from benchmarks.figures.metrics import measure_part
from benchmarks.figures.parts import Part, in_flight_by_window, tokens_by_window
from benchmarks.figures.steady import Steadiness, Verdict, find_steady
from benchmarks.figures.trend import kendall_z, leading_outliers, rise
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run


def answered(due: float, began: float, ended: float) -> Sample:
    return Sample(due, due, ended, began, ended, gaps=(ended - began,), output_tokens=2)


def queue(seed: int, utilisation: float, requests: int = 1000) -> Run:
    """One server, Poisson arrivals, exponential service of 1 s on average: what an open loop sees."""
    chance, due, free, samples = random.Random(seed), 0.0, 0.0, []
    for _ in range(requests):
        due += chance.expovariate(utilisation)
        began = max(due, free)
        free = began + chance.expovariate(1)
        samples.append(answered(due, began + 0.05, free + 0.05))
    return Run(0.0, free + 0.05, samples)


def closed(takes: Callable[[float], float], *, streams: int = 4, seconds: float = 100.0) -> Run:
    """Streams that ask again once they are answered; an answer begun at t takes so long."""
    turns, samples, chance = [(0.0, stream) for stream in range(streams)], [], random.Random(7)
    while turns and turns[0][0] < seconds:
        now, stream = heapq.heappop(turns)
        ended = now + takes(now) * chance.uniform(0.9, 1.1)
        samples.append(answered(now, now + (ended - now) / 2, ended))
        heapq.heappush(turns, (ended, stream))
    return Run(0.0, max(sample.ended_at for sample in samples), samples)


def shares(utilisation: float, requests: int = 1000) -> dict[Verdict, float]:
    found = [find_steady(queue(seed, utilisation, requests), open_loop=True).verdict for seed in range(25)]
    return {verdict: fmean(each is verdict for each in found) for verdict in Verdict}


@pytest.mark.parametrize("utilisation", [0.3, 0.6])
def test_a_queue_that_keeps_up_is_steady(utilisation: float) -> None:
    found = shares(utilisation)
    assert found[Verdict.OVERLOADED] == 0
    assert found[Verdict.STEADY] >= 0.8


@pytest.mark.parametrize("utilisation", [1.4, 2.0, 10.0])
def test_more_than_can_be_served_is_overload_whatever_the_seed(utilisation: float) -> None:
    assert shares(utilisation)[Verdict.OVERLOADED] == 1


def test_the_backlog_is_what_came_and_was_not_served() -> None:
    run = queue(1, 2.0)
    found = find_steady(run, open_loop=True)
    assert found.backlog == pytest.approx(500, rel=0.2)
    assert found.is_whole


def test_the_same_run_of_a_closed_loop_is_no_overload() -> None:
    assert find_steady(queue(1, 2.0), open_loop=False).verdict is Verdict.UNSETTLED


def test_a_cold_beginning_is_left_out() -> None:
    found = find_steady(closed(lambda now: 3.0 if now < 12 else 1.0), open_loop=False)
    assert found.verdict is Verdict.STEADY
    assert 10 <= found.warmup_s <= 20
    assert found.part.ended_at < found.whole.ended_at


def test_without_warmup_nearly_all_is_steady() -> None:
    found = find_steady(closed(lambda _: 1.0), open_loop=False)
    assert found.verdict is Verdict.STEADY
    assert found.warmup_s <= 10


def test_a_stall_in_the_middle_is_not_cut_away_as_warmup() -> None:
    run = closed(lambda now: 12.0 if 30 <= now < 31 else 1.0)
    found = find_steady(run, open_loop=False)
    assert found.verdict is Verdict.STEADY
    assert found.warmup_s <= 10
    slowest = measure_part(run, found.part).e2el
    assert slowest is not None
    assert slowest.maximum > 10


def test_what_gets_slower_to_the_end_never_settles() -> None:
    found = find_steady(closed(lambda now: 1 + now / 30), open_loop=False)
    assert found.verdict is Verdict.UNSETTLED
    assert found.part == found.whole


@pytest.mark.parametrize("run", [Run(0.0, 0.0), queue(1, 0.5, 49), Run(0.0, 1.0, [answered(0, 1, 2)] * 99)])
def test_of_few_requests_or_one_moment_nothing_can_be_said(run: Run) -> None:
    found = find_steady(run, open_loop=True)
    assert (found.verdict, found.part) == (Verdict.SHORT, Part(run.began_at, run.ended_at))


def test_failures_are_under_way_too() -> None:
    run = queue(1, 0.5)
    failed = [Sample(moment, moment, moment + 1, error="timeout") for moment in range(100)]
    assert isinstance(find_steady(Run(0.0, run.ended_at, run.samples + failed), open_loop=True), Steadiness)


def test_figures_of_a_part_are_of_what_began_in_it_and_of_what_came_in_it() -> None:
    run = Run(0.0, 12.0, [answered(0, 1, 4), answered(3, 4, 12), answered(5, 6, 7)])
    metrics = measure_part(run, Part(2.0, 6.0))
    assert metrics.e2el is not None
    assert (metrics.e2el.count, metrics.e2el.maximum) == (2, 9.0)
    assert metrics.output_tokens_per_s == 3 / 4  # at 4, 4 and 6
    assert metrics.requests_per_s == 1 / 4
    assert metrics.completed == 2


def test_windows_hold_what_happened_in_them() -> None:
    samples = [answered(0, 1, 4), answered(3, 3.5, 12)]
    assert in_flight_by_window(samples, Part(0, 8), 4) == [1.0, 1.5, 1.0, 1.0]
    assert tokens_by_window(samples, Part(0, 8), 4) == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("values", "cut"),
    [
        ([1.0] * 20, 0),
        ([9.0, 5.0, 2.0] + [1.0] * 20, 3),
        ([9.0, 1.0, 5.0] + [1.0] * 20, 3),
        ([1.0] * 6 + [9.0] + [1.0] * 20, 0),
        ([9.0, None, 1.0, None] + [1.0] * 20, 1),
        ([1.04] + [1.0] * 20, 0),
        ([], 0),
    ],
)
def test_leading_outliers(values: list[float | None], cut: int) -> None:
    assert leading_outliers(values) == cut


def test_trends() -> None:
    assert kendall_z(list(range(10))) > 3 > -3 > kendall_z(list(range(10, 0, -1)))
    assert kendall_z([1.0] * 10) == kendall_z([1.0, 2.0]) == 0
    assert rise([0.0, 1.0, 2.0, 99.0, 4.0]) == pytest.approx(4)
    assert rise([3.0]) == 0
