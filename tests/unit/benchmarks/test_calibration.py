"""The comparison of what was injected with what was reported, and how it is told."""

import pytest

from benchmarks.calibration.measuring import CASES, Calibration, CalibrationPlan, Limits
from benchmarks.calibration.report import report
from benchmarks.calibration.truth import Difference, Injected, differences
from benchmarks.figures.metrics import measure
from benchmarks.figures.statistics import Interval
from benchmarks.generator.driving import Run
from benchmarks.reports.result import Made
from benchmarks.stacks.scripted_engine import Record
from tests.unit.benchmarks.samples import answered

MADE = Made(at="", command=[], environment={})


def interval(value: float) -> Interval:
    return Interval(value, value, value, 0.95, (value,) * 5)


def test_a_record_has_the_same_figures_as_the_meter() -> None:
    moments = [[0.5, 0.6, 0.9], [0.2, 0.3]]
    records = [Record(0.0, each) for each in moments] + [Record(0.0)]
    run = Run(0.0, 1.0, [answered(0.0, each, tokens=len(each)) for each in moments])
    found = differences(Injected.by(records), measure(run))
    assert {each.latency for each in found} == {"ttft", "itl", "tpot", "e2el"}
    assert len(found) == 12
    assert all(each.error_s == pytest.approx(0.0) for each in found)


def test_what_the_way_adds_is_the_difference() -> None:
    run = Run(0.0, 1.0, [answered(0.0, [0.51, 0.61], tokens=2)])
    found = {each.latency: each for each in differences(Injected.by([Record(0.0, [0.5, 0.6])]), measure(run))}
    assert found["ttft"].error_s == pytest.approx(0.01)
    assert found["itl"].error_s == pytest.approx(0.0)


@pytest.mark.parametrize(("injected", "allowed"), [(0.0, 0.001), (0.05, 0.001), (0.1, 0.002), (2.0, 0.04)])
def test_two_percent_or_a_millisecond(injected: float, allowed: float) -> None:
    assert Difference("itl", "p50", injected, injected).allowed_s == pytest.approx(allowed)


def test_bounds_are_judged_and_what_is_off_is_said() -> None:
    plan = CalibrationPlan(cases=CASES[:1])
    cases = {"fixed": [Difference("ttft", "p99", 0.1, 0.1015), Difference("e2el", "p50", 0.1, 0.11)]}
    limits = Limits(interval(2000), interval(20_000), interval(5e-4), interval(5e-6), busy=0.99, core=3)
    found = report(Calibration(plan, cases, limits), MADE)
    verdicts = {figure.key: figure.bound.verdict for _, figure in found.figures() if figure.bound}
    assert verdicts == {
        "fixed/ttft_p99_error_ms": "kept",
        "fixed/e2el_p50_error_ms": "missed",
        "limits/requests_per_s": "kept",
        "limits/chunks_per_s": "missed",
    }
    assert [remark.code for remark in found.remarks] == ["meter_off"]
    assert {figure.key: figure.value for _, figure in found.figures()}["limits/chunk_cpu_us"] == 5


def test_an_engine_that_gives_no_more_is_told_from_a_generator_that_takes_no_more() -> None:
    limits = Limits(interval(2000), interval(20_000), None, None, busy=0.3, core=None)
    found = report(Calibration(CalibrationPlan(), {}, limits), MADE)
    assert [remark.code for remark in found.remarks] == ["not_pinned", "engine_is_the_limit"]
