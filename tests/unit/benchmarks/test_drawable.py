"""What can be drawn: distributions and bars from what was measured, and plots of each benchmark."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cold import report as cold_report
from benchmarks.cold.loads import ColdLoad
from benchmarks.cold.measuring import ColdPlan, ColdResult
from benchmarks.figures.bounds import Figure
from benchmarks.figures.statistics import Interval, bootstrap_median
from benchmarks.hub.plots import plots as hub_plots
from benchmarks.node.plots import plots as node_plots
from benchmarks.reports.drawable import bars, cdf, present
from benchmarks.reports.result import Made, Plot, Value, group, value
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.stack import SharedData

MADE = Made(at="", command=[], environment={})


def figure(found: Interval | float | None) -> Value:
    return value(Figure(key="f", name="F", unit="ms", found=found))


@given(st.lists(st.floats(0, 1e6), max_size=1000))
def test_a_distribution_rises_from_the_least_value_to_the_most(values: list[float]) -> None:
    line = cdf("ttft", values)
    assert len(line.x) == len(line.y) <= 200
    assert line.x == sorted(line.x)
    assert line.y == sorted(line.y)
    if values:
        assert (line.x[0], line.x[-1], line.y[-1]) == (min(values), max(values), 1.0)
        assert line.y[0] == pytest.approx(1 / len(values))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=150))
def test_every_value_of_a_few_is_drawn(values: list[float]) -> None:
    line = cdf("ttft", values)
    assert line.x == sorted(values)
    assert line.y == [(place + 1) / len(values) for place in range(len(values))]


def test_bars_stand_by_their_labels_with_their_intervals() -> None:
    several = bootstrap_median([1.0, 2.0, 4.0], seed=0)
    plot = bars("k", "T", {"a": {"one": figure(several), "two": figure(several)}, "b": {"two": figure(3.0)}})
    assert plot is not None
    assert plot.x.labels == ["one", "two"]
    assert plot.y.unit == "ms"
    first, second = plot.lines
    assert (first.x, first.y, first.low, first.high) == ([0.0, 1.0], [2.0, 2.0], [1.0, 1.0], [4.0, 4.0])
    assert (second.x, second.y, second.low, second.high) == ([1.0], [3.0], [], [])


def test_one_round_has_no_interval_to_draw() -> None:
    plot = bars("k", "T", {"": {"one": figure(bootstrap_median([1.0], seed=0))}})
    assert plot is not None
    assert plot.lines[0].low == []


def test_what_was_not_measured_is_not_drawn() -> None:
    assert bars("k", "T", {"a": {"one": None, "two": figure(None)}, "b": {}}) is None
    assert present([None]) == []


def lines(plot: Plot) -> dict[str, dict[str, float]]:
    return {
        line.name: {plot.x.labels[int(x)]: y for x, y in zip(line.x, line.y, strict=True)}
        for line in plot.lines
    }


def test_cold_starts_and_swaps_are_drawn_in_seconds(tmp_path) -> None:  # type: ignore[no-untyped-def]
    plan = ColdPlan(EngineChoice(SharedData(tmp_path)))
    cold = ColdLoad((2.0, 2.2), (2.4, 2.6), bootstrap_median([1.2, 1.18], seed=0))
    found = cold_report.report(ColdResult(plan, cold, (1.0, 1.5, 1.6)), MADE)
    (plot,) = found.plots
    assert lines(plot) == {
        "engine": {"cold start": pytest.approx(2.1)},
        "node": {"cold start": pytest.approx(2.5), "swap": 1.5},
    }
    assert cold_report.report(ColdResult(plan), MADE).plots == []


def keyed(found: dict[str, float]) -> list[Figure]:
    return [Figure(key=key, name=key, unit="ms", found=each) for key, each in found.items()]


def test_a_node_is_drawn_by_cores_left_free_and_by_streams() -> None:
    found = {
        "0_cores_free/c1/added_ttft_ms": 1.0,
        "0_cores_free/c8/added_ttft_ms": 2.0,
        "1_cores_free/c1/added_ttft_ms": 3.0,
        "one_by_one/added_ttft_ms": 4.0,
    }
    (plot,) = node_plots([group("all", keyed(found))])
    assert plot.key == "relay/added_ttft_ms"
    assert lines(plot) == {
        "engine on every core": {"1 stream": 1.0, "8 streams": 2.0},
        "one core free": {"1 stream": 3.0},
    }
    assert node_plots([]) == []


def test_a_hub_is_drawn_by_what_it_was_measured_with() -> None:
    (plot,) = hub_plots([group("requests", keyed({"requests/hub_cpu_s_per_1000": 0.3}))])
    assert lines(plot) == {"": {"1,000 requests": 0.3}}
    assert hub_plots([]) == []
