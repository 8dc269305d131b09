"""From a run to what is told of it: which part, which percentiles, intervals, plots and remarks."""

import random
from dataclasses import replace

import pytest

from benchmarks.figures.goodput import parse_slo
from benchmarks.figures.metrics import measure
from benchmarks.figures.steady import Verdict
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.machine.watch import Watched
from benchmarks.reports.result import Made, Result
from benchmarks.serving.evaluating import Meter, Rules, evaluate
from benchmarks.serving.report import told
from tests.unit.benchmarks.samples import answered, failed


def open_loop(seconds: float, *, takes: float = 0.5, grows: float = 0.0, cold: float = 0.0) -> Run:
    """Ten requests a second of six tokens each; waits grow by so much a second, and are long at first."""
    chance, samples = random.Random(1), list[Sample]()
    for number in range(int(seconds * 10)):
        due = number / 10
        wait = 0.1 + grows * due + (5.0 if due < cold else 0.0)
        first = due + wait * chance.uniform(0.8, 1.2)
        samples.append(answered(due, [first + takes * step / 5 for step in range(6)], tokens=6))
    return Run(0.0, max(sample.ended_at for sample in samples), samples)


def result(run: Run, rules: Rules | None = None, meter: Meter | None = None) -> Result:
    found = evaluate(run, rules or Rules(), open_loop=True, ignore_eos=True, seed=1, meter=meter)
    return told(run, found, Made(at="", command=[], environment={}), title="t", settings={}, details={})


def codes(found: Result) -> set[str]:
    return {remark.code for remark in [*found.remarks, *found.refusals]}


def test_a_steady_run_has_intervals_whose_values_a_comparison_can_judge() -> None:
    found = evaluate(open_loop(60), Rules(), open_loop=True, ignore_eos=True)
    assert found.steadiness.verdict is Verdict.STEADY
    assert found.blocks == 30
    for figures in found.latencies.values():
        for figure in figures.values():
            assert figure.interval is not None
            assert figure.interval.low <= figure.value <= figure.interval.high
            assert len(figure.interval.values) == 30
    assert {*found.rates} == {"requests_per_s", "output_tokens_per_s"}
    assert found.rates["requests_per_s"].value == pytest.approx(10, rel=0.02)
    assert found.rates["output_tokens_per_s"].value == pytest.approx(60, rel=0.02)


def test_percentiles_are_told_as_far_as_the_samples_go() -> None:
    found = evaluate(open_loop(20), Rules(), open_loop=True, ignore_eos=True)
    assert [*found.latencies["ttft"]] == ["mean", "p50", "p90", "p95"]  # 200 requests
    assert [*found.latencies["itl"]] == ["mean", "p50", "p90", "p95", "p99"]  # 1,000 gaps
    assert found.left_out == (99.0, 99.9)
    asked = evaluate(open_loop(20), Rules(percents=(50.0, 99.0)), open_loop=True, ignore_eos=True)
    assert [*asked.latencies["ttft"]] == ["mean", "p50", "p99"]
    assert [doubt.code for doubt in asked.doubts if doubt.refuses] == ["too_few_samples"]


def test_a_warmup_is_told_apart_and_marked() -> None:
    run = open_loop(60, cold=6)
    found = result(run)
    assert "steady_part" in codes(found)
    steady = found.details["steady"]
    assert isinstance(steady, dict)
    assert 5 <= steady["from_s"] <= 15
    slow = {figure.key: figure.value for _, figure in found.figures()}["ttft_p99_ms"]
    assert slow is not None
    assert slow < 1000
    timelines = [plot for plot in found.plots if plot.kind == "timeline"]
    assert len(timelines) == 3
    assert all(plot.marks["steady from"] == steady["from_s"] for plot in timelines)


def test_without_the_search_figures_are_of_the_whole_run() -> None:
    run = open_loop(60, cold=6)
    found = evaluate(run, Rules(steady=False), open_loop=True, ignore_eos=True)
    assert found.metrics == measure(run)
    assert found.steadiness.verdict is Verdict.UNASKED


def test_overload_is_said_plainly() -> None:
    found = result(open_loop(60, grows=0.5))
    assert codes(found) >= {"overload"}
    text = next(remark.text for remark in found.remarks if remark.code == "overload")
    assert "More comes than the endpoint can serve" in text


@pytest.mark.parametrize("run", [Run(0.0, 0.0), Run(0.0, 1.0, [failed("dns")]), open_loop(1)])
def test_of_little_little_is_told(run: Run) -> None:
    found = result(run, Rules(slos=(parse_slo("ttft=1s"),)))
    assert "steady_unknown" in codes(found)
    assert "no_intervals" in codes(found)


def test_goodput_counts_failures_as_not_good() -> None:
    run = open_loop(60)
    half = [
        replace(sample, error="timeout") if number % 2 else sample
        for number, sample in enumerate(run.samples)
    ]
    rules = Rules(slos=(parse_slo("e2el=10s"),), max_errors=1.0)
    found = evaluate(replace(run, samples=half), rules, open_loop=True, ignore_eos=True)
    assert found.rates["good_share"].value == pytest.approx(0.5, abs=0.01)
    assert found.rates["goodput"].value == pytest.approx(5, rel=0.05)
    assert found.rates["goodput"].interval is not None


def test_distributions_rise_from_nothing_to_all() -> None:
    (plot,) = [plot for plot in result(open_loop(30)).plots if plot.kind == "cdf"]
    assert [line.name for line in plot.lines] == ["TTFT", "ITL", "TPOT", "E2EL"]
    for line in plot.lines:
        assert line.x == sorted(line.x)
        assert (line.y[0], line.y[-1]) == (0.0, 1.0)
        assert len(line.x) == len(line.y)


def test_tokens_over_time_add_up() -> None:
    run = open_loop(30)
    plot = next(plot for plot in result(run).plots if plot.key == "tokens_timeline")
    width = plot.lines[0].x[1] - plot.lines[0].x[0]
    assert sum(plot.lines[0].y) * width == pytest.approx(6 * len(run.samples))


def with_failures(count: int, of: int = 4000) -> Run:
    """So many failures among requests that are one like the other."""
    samples = [answered(n / 10, [n / 10 + 0.1, n / 10 + 0.2], tokens=2) for n in range(of - count)]
    return Run(0.0, of / 10, [*samples, *(failed("http_503") for _ in range(count))])


@pytest.mark.parametrize(
    ("failures", "marked"),
    [(0, ()), (4, ()), (5, (99.9,)), (40, (99.9,)), (41, (99.0, 99.9)), (2001, (50.0, 90.0, 95.0, 99.0))],
)
def test_percentiles_that_failures_would_move_are_of_the_answered(
    failures: int, marked: tuple[float, ...]
) -> None:
    rules = Rules(max_errors=1.0, steady=False)
    found = evaluate(with_failures(failures), rules, open_loop=True, ignore_eos=True)
    assert found.of_answered == marked
    written = result(with_failures(failures), rules)
    names = {figure.key: figure.name for _, figure in written.figures()}
    assert {key for key, name in names.items() if name.endswith(" of the answered")} == {
        f"{kind}_p{percent:g}_ms" for kind in found.latencies for percent in marked
    }
    assert ("percentiles_of_answered" in codes(written)) == bool(marked)


def test_a_part_says_what_began_in_it_and_what_came_in_it() -> None:
    part = {figure.key: figure.name for _, figure in result(open_loop(60, cold=6)).figures()}
    assert part["completed"] == "complete requests, begun in this part"
    assert part["requests_per_s"] == "requests/s, in this part"
    whole = result(open_loop(60, cold=6), Rules(steady=False))
    assert {figure.key: figure.name for _, figure in whole.figures()}["requests_per_s"] == "requests/s"


def test_answers_of_one_chunk_have_no_gaps_and_the_page_says_so_once() -> None:
    run = Run(0.0, 40.0, [answered(n / 10, [n / 10 + 0.1], tokens=1) for n in range(400)])
    found = result(run)
    assert [remark.code for remark in found.remarks].count("one_chunk") == 1
    assert not any(figure.key.startswith(("itl", "tpot")) for _, figure in found.figures())
    assert "one_chunk" not in codes(result(open_loop(20)))


@pytest.mark.parametrize(
    ("meter", "code"),
    [
        (Meter(busy=(0.3, 0.99)), "generator_saturated"),
        (Meter(watched=Watched(lags=(0.5,) * 100)), "generator_late"),
        (Meter(watched=Watched(clock_jump_s=-2.0)), "clock_jumped"),
    ],
)
def test_a_meter_that_cannot_be_relied_on_refuses(meter: Meter, code: str) -> None:
    assert [refusal.code for refusal in result(open_loop(20), meter=meter).refusals] == [code]
    assert result(open_loop(20), meter=Meter(busy=(0.5,))).refusals == []
