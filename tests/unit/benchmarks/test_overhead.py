"""Rounds into ratios, and CPU seconds into differences."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.generator.client import Sample
from benchmarks.generator.load import Run
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import consumed
from benchmarks.overhead.comparing import ComparePlan, Round, reduce_rounds


def run(duration: float, first: float, *, tokens: int = 10, error: str | None = None) -> Run:
    sample = Sample(0.0, 0.0, duration, first, duration, (), 1, tokens, counted=True, error=error)
    return Run(0.0, duration, [sample])


def turn(direct: Run, via: Run, cpu: float = 0.0) -> Round:
    return Round(direct, via, {"hub": cpu}, 0.1)


def test_a_level_is_the_median_of_its_rounds() -> None:
    rounds = [
        turn(run(1.0, 0.1), run(scale, 0.1 + lag), 0.01)
        for scale, lag in ((1.25, 0.002), (2.0, 0.004), (8.0, 1.0))
    ]
    level = reduce_rounds(4, rounds, seed=0)
    assert level.throughput_ratio is not None
    assert level.throughput_ratio.median == pytest.approx(0.5)
    assert level.added_ttft_s is not None
    assert level.added_ttft_s.median == pytest.approx(0.004)
    assert level.e2el_ratio is not None
    assert level.e2el_ratio.median == pytest.approx(2.0)
    assert level.cpu_per_token_s["hub"].median == pytest.approx(0.01 / 10)
    assert level.cpu_per_request_s["hub"].median == pytest.approx(0.01)
    assert (level.concurrency, level.rounds, level.spoiled_rounds) == (4, 3, 0)


def test_a_round_with_a_failure_is_left_out_and_told() -> None:
    rounds = [turn(run(1.0, 0.1), run(1.0, 0.1)), turn(run(1.0, 0.1), run(9.0, 0.1, error="timeout"))]
    level = reduce_rounds(1, rounds, seed=0)
    assert level.spoiled_rounds == 1
    assert level.throughput_ratio is not None
    assert level.throughput_ratio.median == 1.0
    assert level.via.errors == {"timeout": 1}


def test_nothing_but_failures_gives_no_figures() -> None:
    level = reduce_rounds(1, [turn(run(1.0, 0.1), run(1.0, 0.1, error="dns"))], seed=0)
    assert (level.throughput_ratio, level.added_ttft_s, level.cpu_per_token_s) == (None, None, {})


@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_an_endpoint_against_itself_is_one(pairs: list[tuple[float, float]]) -> None:
    rounds = [turn(run(a + b, a), run(a + b, a)) for a, b in pairs]
    level = reduce_rounds(1, rounds, seed=0)
    assert level.throughput_ratio is not None
    assert (level.throughput_ratio.low, level.throughput_ratio.high) == (1.0, 1.0)
    assert level.added_ttft_s is not None
    assert level.added_ttft_s.median == 0.0


def test_requests_follow_the_number_of_streams() -> None:
    plan = ComparePlan(Workload(Fixed(1), Fixed(1)))
    assert [plan.requests_at(streams) for streams in (1, 2, 8)] == [4, 4, 16]
    assert ComparePlan(Workload(Fixed(1), Fixed(1)), requests=3).requests_at(8) == 3


def test_cpu_time_is_a_difference_per_process() -> None:
    before = {"hub": {(1, 0.5): 10.0, (2, 0.5): 4.0}}
    after = {"hub": {(1, 0.5): 11.0, (3, 9.0): 2.0}}  # 2 has ended, 3 has begun
    assert consumed(before, after) == {"hub": 3.0}


def test_a_process_id_used_again_is_another_process() -> None:
    assert consumed({"hub": {(1, 0.5): 10.0}}, {"hub": {(1, 7.0): 2.0}}) == {"hub": 2.0}
