"""How many nodes a demand takes: against queues with a formula, and against a simulated node."""

import json
from collections.abc import Sequence
from functools import cache
from math import factorial, inf
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.capacity.model import NodeModel, most
from benchmarks.capacity.planning import Demand, cross_validate, objectives, plan_capacity
from benchmarks.capacity.points import Point, Spread, flaws, read_points
from benchmarks.cli import app
from benchmarks.errors import ResultUnreadable, SettingInvalid
from benchmarks.figures.goodput import parse_slos
from benchmarks.reports import result
from benchmarks.reports.result import Made, Remark, Result
from tests.unit.benchmarks.simulated_node import Node, Seen, simulate, true_most

NODE = Node()
STREAMS = (1, 2, 4, 6, 8, 12, 16, 24)
SHARE = 0.95


def serving(load: dict[str, object], details: dict[str, object]) -> Result:
    made = Made(at="", command=[], environment={})
    return Result(benchmark="serving", made=made, settings={"load": load}, groups=[], details=details)


@cache
def ramp() -> Result:
    seen = {count: simulate(NODE, requests=600, streams=count, seed=count) for count in STREAMS}
    steps = [{"level": count, "metrics": each.details()} for count, each in seen.items()]
    return serving({"kind": "ramp", "steps": "concurrency:auto"}, {"steps": steps})


def one(count: float, rate: float, **latencies: float) -> Point:
    """All requests alike."""
    spreads = {name: Spread((0.0, 1.0), (seconds, seconds)) for name, seconds in latencies.items()}
    return Point(f"{count:g} at a time", count, rate, spreads, 32, 64, open_loop=False)


# --- queues with a formula


@pytest.mark.parametrize("load", [0.1, 0.5, 0.9])
def test_one_server_is_found_as_the_formula_says(load: float) -> None:
    model = NodeModel((one(1, 1.0, e2el=1.0), one(4, 1.0, e2el=4.0)))
    found = model.found(load)
    assert found[:6] == pytest.approx([(1 - load) * load**count for count in range(6)])
    assert sum(found) == pytest.approx(1)


@pytest.mark.parametrize("load", [0.5, 2.0, 3.5])
def test_several_servers_are_found_busy_as_erlang_says(load: float) -> None:
    servers = 4
    model = NodeModel(tuple(one(count, min(count, servers), e2el=1.0) for count in range(1, 9)))
    own = [load**count / factorial(count) for count in range(servers)]
    waits = load**servers / factorial(servers) / (1 - load / servers)
    assert 1 - sum(model.found(load)[:servers]) == pytest.approx(waits / (sum(own) + waits))


def test_a_line_that_grows_without_end_is_found_by_nobody() -> None:
    model = NodeModel((one(1, 1.0, e2el=1.0), one(4, 2.0, e2el=2.0)))
    assert (model.limit, model.found(2.0), model.latency("e2el", 0.5, 2.0)) == (2.0, [], inf)


@given(st.floats(0.01, 10), st.floats(0, 2), st.integers(2, 8))
def test_a_node_whose_time_grows_evenly_is_told_exactly(alone: float, each: float, count: int) -> None:
    def point(streams: int) -> Point:
        return one(streams, streams / (alone + each * streams), ttft=alone + each * streams)

    misses = cross_validate([point(2**step) for step in range(count + 1)], ("ttft",), 0.99)
    assert [miss.relative for miss in misses] == pytest.approx([0.0] * len(misses), abs=1e-6)
    assert len(misses) == 2 * (count - 1)


def test_what_limits_a_node_is_named() -> None:
    servers = 4
    points = tuple(
        one(
            count,
            min(count, servers),
            ttft=0.1 + max(0, count - servers) / servers,
            itl=0.01 * min(count, servers),
            e2el=1 + max(0, count - servers) / servers,
        )
        for count in range(1, 17)
    )
    model = NodeModel(points)
    assert most(model, {}, SHARE).limited_by == "throughput"
    assert most(model, {"ttft": 60.0}, SHARE).limited_by == "throughput"
    assert most(model, {"ttft": 0.5}, SHARE).limited_by == "slots"
    assert most(model, {"itl": 0.025}, SHARE).limited_by == "itl"
    assert most(model, {"ttft": 0.05}, SHARE) == most(model, {"ttft": 0.05, "itl": 1.0}, SHARE)
    assert most(model, {"ttft": 0.05}, SHARE).load == 0.0


@settings(max_examples=8)  # each plans five times
@given(st.floats(0.05, 4), st.floats(0.05, 4), st.floats(0.5, 0.99), st.floats(0.1, 500))
def test_more_is_asked_more_nodes_are_needed(limit: float, other: float, share: float, rate: float) -> None:
    points = read_points([ramp()])[:5]

    def nodes(objective: float, asked: float, margin: float = 0.2) -> float:
        plan = plan_capacity(points, Demand(asked, {"ttft": objective}, share), margin=margin)
        assert (plan.nodes is None) == (plan.without_margin is None)
        assert (plan.nodes or 1) >= (plan.without_margin or 1)
        return plan.nodes or inf

    strict, loose = sorted((limit, other))
    assert nodes(strict, rate) >= nodes(loose, rate)
    assert nodes(loose, rate) <= nodes(loose, 2 * rate)
    assert nodes(loose, rate) <= nodes(loose, rate, 0.5)


@given(st.sampled_from(["ttft", "itl", "e2el"]), st.floats(0.01, 10), st.floats(0.1, 4), st.floats(0.1, 4))
def test_a_busier_node_keeps_no_more(latency: str, limit: float, load: float, other: float) -> None:
    model = NodeModel(tuple(read_points([ramp()])))
    calm, busy = (model.within(latency, limit, each) for each in sorted((load, other)))
    # Measured latencies scatter from load to load by some hundredths.
    assert 0 <= busy <= calm + 0.05 <= 1.05 + 1e-9


# --- a node whose truth is known


@pytest.mark.parametrize(
    "objectives", [{"ttft": 0.3}, {"ttft": 1.0}, {"itl": 0.06}, {"e2el": 4.0}, {"ttft": 1.0, "e2el": 6.0}]
)
def test_what_a_node_takes_is_what_it_takes(objectives: dict[str, float]) -> None:
    told = most(NodeModel(tuple(read_points([ramp()]))), objectives, SHARE).load
    truth = true_most(NODE, objectives, SHARE)
    # A closed loop is steadier than chance: the model errs on the safe side, and never far beyond the truth.
    assert 0.8 * truth < told < 1.05 * truth


@pytest.mark.parametrize("rate", [6.0, 20.0])
def test_so_many_nodes_keep_the_objective_and_half_of_them_do_not(rate: float) -> None:
    demand = Demand(rate, {"ttft": 0.5}, SHARE)
    plan = plan_capacity(read_points([ramp()]), demand, margin=0.1)
    assert plan.nodes is not None
    assert plan.load == pytest.approx(rate / plan.nodes)
    enough = simulate(NODE, requests=4000, rate=rate / plan.nodes, seed=3)
    too_few = simulate(NODE, requests=4000, rate=rate / (plan.nodes / 2), seed=3)
    assert enough.within("ttft", 0.5) >= SHARE > too_few.within("ttft", 0.5)


def test_loads_that_came_by_chance_are_told_by_those_kept_in_flight() -> None:
    rates = {rate: simulate(NODE, requests=3000, rate=rate, seed=5) for rate in (1.5, 2.5, 3.0)}
    results = [
        serving({"kind": "open", "rate": rate, "arrivals": "poisson"}, {"metrics": seen.details()})
        for rate, seen in rates.items()
    ]
    points = read_points([ramp(), *results])
    assert [point.open_loop for point in points].count(True) == 3
    misses = cross_validate(points, ("e2el",), SHARE)
    of_rates = [miss for miss in misses if miss.point.endswith("a second")]
    assert {miss.of for miss in of_rates} == {"throughput", "e2el"}
    assert all(abs(miss.relative) < 0.25 for miss in of_rates)


# --- what it refuses


def plan(points: Sequence[Point], **demand: object) -> object:
    asked: dict[str, object] = {"rate": 5.0, "objectives": {"ttft": 1.0}, "share": SHARE}
    extrapolate = bool(demand.pop("extrapolate", False))
    return plan_capacity(points, Demand(**asked | demand), margin=0.2, extrapolate=extrapolate)  # type: ignore[arg-type]


def test_lengths_that_were_not_measured_are_guessed_at_on_request_only() -> None:
    points = read_points([ramp()])
    measured = points[0].output_tokens
    same = plan_capacity(points, Demand(5, {"ttft": 1.0}, SHARE, 33, measured * 1.05), margin=0.2)
    assert same.guessed == ()
    with pytest.raises(SettingInvalid, match=r"64 prompt tokens, where 32 were measured.*--extrapolate"):
        plan(points, prompt_tokens=64)
    guessed = plan_capacity(
        points, Demand(5, {"ttft": 1.0}, SHARE, output_tokens=measured * 4), margin=0.2, extrapolate=True
    )
    assert "Guessed by tokens alone" in guessed.guessed[0]
    assert guessed.most == pytest.approx(same.most / 4, rel=0.1)
    assert (guessed.nodes or 0) > (same.nodes or 0)


def test_a_ramp_that_ended_too_soon_says_so_and_counts_on_no_more() -> None:
    points = read_points([ramp()])
    short = plan_capacity(points[:4], Demand(5, {"ttft": 1.0}, SHARE), margin=0.2)
    assert "the node still answered more" in short.guessed[0]
    assert short.most == points[3].rate
    late = plan_capacity(points[2:], Demand(5, {"ttft": 1.0}, SHARE), margin=0.2)
    assert "Nothing was measured below 4 at a time" in late.guessed[0]


def test_what_cannot_be_told_is_refused() -> None:
    points = read_points([ramp()])
    with pytest.raises(SettingInvalid, match=r"2 loads say too little.*--ramp"):
        plan(points[:2])
    with pytest.raises(SettingInvalid, match="were not streamed"):
        plan([one(count, 1.0, e2el=1.0) for count in (1, 2, 4)])
    with pytest.raises(ResultUnreadable, match="not of 'hub'"):
        read_points([result.Result(benchmark="hub", made=ramp().made, settings={}, groups=[])])
    with pytest.raises(ResultUnreadable, match="lacks"):
        read_points([serving({"kind": "closed"}, {"steps": [{"metrics": {}}]})])
    failed = simulate(NODE, requests=20, streams=1).details() | {"failed": 3}
    with pytest.raises(SettingInvalid, match="3 requests failed at 2"):
        read_points([serving({"kind": "closed", "concurrency": 2}, {"metrics": failed})])


def test_objectives_are_those_of_serving_and_of_whole_requests() -> None:
    assert objectives(parse_slos(["ttft=500ms,e2el=2s"])) == {"ttft": 0.5, "e2el": 2.0}
    with pytest.raises(SettingInvalid, match="--percentile"):
        objectives(parse_slos(["itl:p95=50ms"]))


# --- the command


@pytest.fixture
def measured(tmp_path: Path) -> str:
    result.write(ramp(), tmp_path / "ramp.json")
    return str(tmp_path / "ramp.json")


def test_the_answer_with_its_reasons_and_its_error(measured: str, tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    asked = ["capacity", measured, "--rate", "20", "--slo", "ttft=1s,itl=100ms", "--percentile", "95"]
    told = CliRunner().invoke(app, [*asked, "--json", str(file)], env={"COLUMNS": "160"})
    assert told.exit_code == 0, told.output
    written = result.read(file)
    figures = {figure.key: figure.value for _, figure in written.figures()}
    assert figures["nodes"] == 8
    assert figures["nodes_without_margin"] == 7
    assert figures["expected/ttft_ms"] < 1000
    assert 0 < figures["error/throughput_median_percent"] <= figures["error/throughput_worst_percent"] < 20
    assert written.details["limited_by"] == "slots"
    assert "requests that wait for a slot" in told.output
    assert written.plots[0].lines[0].x


def test_an_objective_that_nothing_keeps_is_no_number_of_nodes(measured: str) -> None:
    told = CliRunner().invoke(
        app,
        ["capacity", measured, "--rate", "20", "--slo", "ttft=1ms", "--json", "-"],
        env={"COLUMNS": "160"},
    )
    assert told.exit_code == 3
    assert [each["code"] for each in json.loads(told.stdout)["refusals"]] == ["slo_unreachable"]
    assert "No number of nodes keeps TTFT within 1 ms" in told.stderr


def test_a_seen_load_is_written_as_serving_writes_it() -> None:
    assert set(Seen(1.0, [0.1], [0.1], [0.1]).details()) >= {"completed", "ttft_ms", "itl_ms", "e2el_ms"}


def test_a_plan_of_measurements_that_are_not_believed_is_not_believed_either(tmp_path: Path) -> None:
    refusal = Remark(code="generator_saturated", text="The generator was busy.")
    flawed = msgspec.structs.replace(ramp(), refusals=[refusal], interrupted=True)
    result.write(flawed, tmp_path / "ramp.json")
    asked = ["capacity", str(tmp_path / "ramp.json"), "--rate", "20", "--json", "-"]
    told = CliRunner().invoke(app, asked, env={"COLUMNS": "160"})
    written = json.loads(told.stdout)
    assert told.exit_code == 3
    assert [each["code"] for each in written["refusals"]] == ["generator_saturated"]
    assert "ramp.json is not to be believed" in written["refusals"][0]["text"]
    assert "interrupted" in [each["code"] for each in written["remarks"]]


def test_two_nodes_taken_for_one_are_said() -> None:
    other = msgspec.structs.replace(ramp(), settings={"load": {"kind": "ramp"}, "target": {"model": "other"}})
    again = msgspec.structs.replace(ramp(), settings={"load": {"kind": "ramp"}, "workload": {"seed": 7}})
    afresh = msgspec.structs.replace(ramp(), settings={"load": {"kind": "ramp"}, "workload": {"seed": 8}})
    assert [flaw.code for flaw in flaws([("a", ramp()), ("b", other)])] == ["other_settings"]
    assert not list(flaws([("a", again), ("b", afresh)]))


@pytest.mark.parametrize(
    "damage", [{"e2el_ms": {"mean": 1.0}}, {"e2el_ms": {"p50": -1.0}}, {"requests_per_s": 0}]
)
def test_damaged_points_are_said(damage: dict[str, object]) -> None:
    metrics = simulate(NODE, requests=20, streams=1).details() | damage
    with pytest.raises(ResultUnreadable, match="damaged"):
        read_points([serving({"kind": "closed", "concurrency": 2}, {"metrics": metrics})])
