"""Rounds into ratios, and CPU seconds into differences."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import consumed
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import ComparePlan, Comparison, Level, reduce_rounds, streams
from benchmarks.overhead.turns import Round, Side, Turn, order
from benchmarks.reports.result import Made, Result, to_json

LOAD = streams(Workload(Fixed(1), Fixed(1)), 4)
NAMES = ("direct", "via")


def run(duration: float, first: float, *, tokens: int = 10, error: str | None = None) -> Run:
    gaps = (0.001,) * (tokens - 1)
    sample = Sample(0.0, 0.0, duration, first, duration, gaps, 1, tokens, counted=True, error=error)
    return Run(0.0, duration, [sample])


def pair(direct: Run, via: Run, cpu: float = 0.0) -> Round:
    return Turn(direct, {}, 0.1), Turn(via, {"hub": cpu}, 0.1)


def test_a_level_is_the_median_of_its_rounds() -> None:
    rounds = [
        pair(run(1.0, 0.1), run(scale, 0.1 + lag), 0.01)
        for scale, lag in ((1.25, 0.002), (2.0, 0.004), (8.0, 1.0))
    ]
    level = reduce_rounds(LOAD, NAMES, rounds, seed=0)
    via = level.via
    assert via.throughput_ratio is not None
    assert via.throughput_ratio.median == pytest.approx(0.5)
    assert via.added_ttft_s is not None
    assert via.added_ttft_s.median == pytest.approx(0.004)
    assert via.e2el_ratio is not None
    assert via.e2el_ratio.median == pytest.approx(2.0)
    spent = via.cpu["hub"]
    assert spent.per_token_s.median == pytest.approx(0.01 / 10)
    assert spent.per_request_s.median == pytest.approx(0.01)
    assert spent.per_chunk_s is not None
    assert spent.per_chunk_s.median == pytest.approx(0.01 / 10)
    assert (level.load, level.rounds, via.spoiled_rounds) == (LOAD, 3, 0)


def test_the_first_side_is_measured_against_nothing() -> None:
    first = reduce_rounds(LOAD, NAMES, [pair(run(1.0, 0.1), run(2.0, 0.1))], seed=0).first
    assert (first.name, first.throughput_ratio, first.added_ttft_s) == ("direct", None, None)
    assert first.requests_per_s is not None
    assert first.requests_per_s.median == 1.0


def test_each_side_is_measured_against_the_first_within_its_round() -> None:
    rounds = [
        (Turn(run(slow, 0.1), {}, 0.1), Turn(run(2 * slow, 0.1), {}, 0.1), Turn(run(4 * slow, 0.1), {}, 0.1))
        for slow in (1.0, 3.0, 9.0)
    ]
    level = reduce_rounds(LOAD, ("engine", "node", "hub"), rounds, seed=0)
    ratios = {side.name: side.throughput_ratio for side in level.others}
    assert {name: found and found.values for name, found in ratios.items()} == {
        "node": pytest.approx((0.5, 0.5, 0.5)),
        "hub": pytest.approx((0.25, 0.25, 0.25)),
    }


def test_the_processors_time_of_a_whole_way_counts_the_generator() -> None:
    direct = Turn(run(1.0, 0.1), {"engine": 0.1}, 0.1)
    via = Turn(run(1.0, 0.1), {"engine": 0.1, "hub": 0.4, "node": 0.3}, 0.2)
    found = reduce_rounds(LOAD, NAMES, [(direct, via)], seed=0).via.cpu_ratio
    assert found is not None
    assert found.median == pytest.approx(5.0)
    blind = reduce_rounds(LOAD, NAMES, [(Turn(run(1.0, 0.1), {}, 0.1), via)], seed=0)
    assert blind.via.cpu_ratio is None


def test_a_round_with_a_failure_is_left_out_and_told() -> None:
    rounds = [pair(run(1.0, 0.1), run(1.0, 0.1)), pair(run(1.0, 0.1), run(9.0, 0.1, error="timeout"))]
    via = reduce_rounds(LOAD, NAMES, rounds, seed=0).via
    assert via.spoiled_rounds == 1
    assert via.throughput_ratio is not None
    assert via.throughput_ratio.median == 1.0
    assert via.metrics.errors == {"timeout": 1}


def test_a_failure_of_one_side_spoils_no_other_but_one_of_the_first_spoils_all() -> None:
    good, bad = Turn(run(1.0, 0.1), {}, 0.1), Turn(run(1.0, 0.1, error="timeout"), {}, 0.1)
    level = reduce_rounds(LOAD, ("a", "b", "c"), [(good, bad, good), (bad, good, good)], seed=0)
    assert [side.spoiled_rounds for side in level.others] == [2, 1]


def test_nothing_but_failures_gives_no_figures() -> None:
    via = reduce_rounds(LOAD, NAMES, [pair(run(1.0, 0.1), run(1.0, 0.1, error="dns"))], seed=0).via
    assert (via.throughput_ratio, via.added_ttft_s, via.cpu) == (None, None, {})


def test_what_is_not_streamed_has_no_cost_of_a_chunk() -> None:
    whole = Run(0.0, 1.0, [Sample(0.0, 0.0, 1.0, None, 1.0, (), 1, 1, counted=True)])
    spent = reduce_rounds(LOAD, NAMES, [pair(whole, whole, 0.01)], seed=0).via.cpu["hub"]
    assert (spent.per_request_s.median, spent.per_chunk_s) == (0.01, None)


@settings(max_examples=20)  # each resamples a dozen intervals
@given(st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_an_endpoint_against_itself_is_one(pairs: list[tuple[float, float]]) -> None:
    rounds = [pair(run(a + b, a), run(a + b, a)) for a, b in pairs]
    via = reduce_rounds(LOAD, NAMES, rounds, seed=0).via
    assert via.throughput_ratio is not None
    assert (via.throughput_ratio.low, via.throughput_ratio.high) == (1.0, 1.0)
    assert via.added_ttft_s is not None
    assert via.added_ttft_s.median == 0.0


@given(st.integers(2, 8), st.integers(0, 100))
def test_each_side_takes_each_place_once_in_as_many_rounds_as_there_are_sides(sides: int, begin: int) -> None:
    rounds = [order(begin + number, sides) for number in range(sides)]
    for place in range(sides):
        assert sorted(turns[place] for turns in rounds) == list(range(sides))
    assert all(sorted(turns) == list(range(sides)) for turns in rounds)


def test_requests_follow_the_number_of_streams() -> None:
    workload = Workload(Fixed(1), Fixed(1))
    assert [streams(workload, count).requests for count in (1, 2, 8)] == [4, 4, 16]
    assert streams(workload, 8, requests=3).requests == 3


def reported(level: Level, *names: str) -> Result:
    sides = tuple(Side(name, Target("http://localhost:1", "m", api_key="sk-secret")) for name in names)
    found = Comparison(sides, ComparePlan((LOAD,)), (level,), interrupted=False)
    return overhead_report.report(found, Made(at="", command=[], environment={}))


def test_figures_of_many_sides_are_told_side_by_side() -> None:
    turns = tuple(Turn(run(float(slow), 0.1), {"engine": 0.1}, 0.1) for slow in (1, 2, 4))
    names = ("engine", "node", "hub")
    result = reported(reduce_rounds(LOAD, names, [turns], seed=0), *names)
    told = {figure.key: figure.value for _, figure in result.figures()}
    assert (told["c4/node/throughput_ratio"], told["c4/hub/throughput_ratio"]) == (0.5, 0.25)
    # The engine does the same for all, and is told once.
    assert [key for key in told if "_cpu_s_per_" in key] == ["c4/engine/engine_cpu_s_per_100k_chunks"]
    assert told["c4/engine/engine_cpu_s_per_100k_chunks"] == pytest.approx(1000.0)
    assert [figure.key for _, figure in result.figures()][:2] == [
        "c4/node/throughput_ratio",
        "c4/hub/throughput_ratio",
    ]
    assert len(told) == len(list(result.figures()))
    assert "sk-secret" not in to_json(result).decode()


def test_the_figures_of_two_sides_name_no_side() -> None:
    level = reduce_rounds(LOAD, NAMES, [pair(run(1.0, 0.1), run(2.0, 0.1), 0.5)], seed=0)
    told = {figure.key: figure.value for _, figure in reported(level, *NAMES).figures()}
    assert told["c4/throughput_ratio"] == 0.5
    assert told["c4/hub_cpu_s_per_100k_chunks"] == pytest.approx(5000)


def test_answers_of_one_chunk_are_told_by_requests() -> None:
    rounds = [pair(run(1.0, 0.1, tokens=1), run(2.0, 0.1, tokens=1), 0.5)]
    result = reported(reduce_rounds(LOAD, NAMES, rounds, seed=0), *NAMES)
    told = {figure.key for _, figure in result.figures()}
    assert {key for key in told if "cpu" in key} == {"c4/hub_cpu_s_per_1000_requests"}
    assert "c4/tpot_ratio" not in told
    assert [remark.code for remark in result.remarks] == ["one_token"]


def test_cpu_time_is_a_difference_per_process() -> None:
    before = {"hub": {(1, 0.5): 10.0, (2, 0.5): 4.0}}
    after = {"hub": {(1, 0.5): 11.0, (3, 9.0): 2.0}}  # 2 has ended, 3 has begun
    assert consumed(before, after) == {"hub": 3.0}


def test_a_process_id_used_again_is_another_process() -> None:
    assert consumed({"hub": {(1, 0.5): 10.0}}, {"hub": {(1, 7.0): 2.0}}) == {"hub": 2.0}
