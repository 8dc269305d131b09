"""The policy benchmark: decisions about a real registry, and how they are told."""

from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.policy import report as policy_report
from benchmarks.policy.decision import DecisionCase, DecisionPlan, FleetSize, Times, measure
from benchmarks.policy.measuring import PolicyResult
from benchmarks.reports.result import Made, read


async def test_decisions_are_timed_about_a_real_registry():
    plan = DecisionPlan(models=5, decisions=50, rounds=2)
    case = await measure(plan, FleetSize(40, 30))
    for times in (case.hot, case.mixed, case.places):
        assert len(times) == 2
        assert all(0 < each.p50 <= each.p99 for each in times)


def result_of(times):
    found = PolicyResult(DecisionPlan())
    for size, p99 in times.items():
        rounds = [Times(p99 / 2, p99)] * 7
        found.cases.append(DecisionCase(size, rounds, rounds, rounds))
    return found


def test_a_decision_that_takes_too_long_or_longer_for_forbidden_nodes_is_told():
    found = result_of({FleetSize(100): 50.0, FleetSize(10_000): 120.0, FleetSize(100, 9_900): 80.0})
    told = {figure.name: figure.verdict for figure in policy_report.decision_figures(found)}
    assert told == {
        "p99, 100 nodes": "kept",
        "p99, 10,000 nodes": "missed",
        "p99, 100 nodes, 9,900 forbidden": "kept",
        "p50, 100 nodes, 9,900 forbidden / none": "missed",
    }
    written = policy_report.report(found, Made(at="", command=[], environment={}))
    keys = [figure.key for _, figure in written.figures()]
    assert len(set(keys)) == len(keys) == 3 * 6 + 1
    median, slowest = written.plots
    assert median.x.labels == ["100 nodes", "10,000 nodes", "100 nodes, 9,900 forbidden"]
    assert [line.name for line in slowest.lines] == ["hot model", "all models", "taking a place"]
    assert [line.y for line in slowest.lines] == [[50.0, 120.0, 80.0]] * 3


def test_the_command_shows_and_writes_each_fleet(tmp_path):
    file = tmp_path / "policy.json"
    arguments = ["policy", "--quick", "--decisions", "50", "--quiet", "--json", str(file)]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for text in ("hot model", "taking a place", "forbidden"):
        assert text in done.output
    written = read(file)
    assert (written.benchmark, written.settings["decisions"], written.made.quick) == ("policy", 50, True)
    figures = {figure.key: figure for _, figure in written.figures()}
    for size in ("100+0", "500+0", "100+900"):
        assert len(figures[f"decision/{size}/hot_p99_us"].values) == 2
