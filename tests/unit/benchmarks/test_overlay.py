"""Several results over each other: names, tables and drawings."""

from pathlib import Path
from typing import Any

from benchmarks.figures.bounds import Figure
from benchmarks.reports.describing import numbers, sentence
from benchmarks.reports.overlay import Mark, Named, named, sections
from benchmarks.reports.result import Axis, Group, Line, Made, Plot, Remark, Result, group

MADE = Made(at="2026-01-01T00:00:00+00:00", command=["porten-bench"], environment={})


def figure(key: str, found: float = 1.0) -> Figure:
    return Figure(key=key, name=key, unit="ms", found=found)


def result(benchmark: str = "node", groups: list[Group] | None = None, **more: Any) -> Result:
    return Result(benchmark=benchmark, made=MADE, settings={}, groups=groups or [], **more)


def curve(key: str, name: str, x: list[float], **more: Any) -> Plot:
    lines = [Line(name=name, x=x, y=[10 * each for each in x])]
    return Plot(
        key=key,
        title=key,
        kind="curve",
        x=Axis(name="rate"),
        y=Axis(name="TTFT", unit="ms"),
        lines=lines,
        **more,
    )


def bars(labels: list[str], y: list[float]) -> Plot:
    lines = [Line(name="", x=[float(place) for place in range(len(labels))], y=y)]
    return Plot(
        key="b",
        title="B",
        kind="bars",
        x=Axis(name="", labels=labels),
        y=Axis(name="", unit="s"),
        lines=lines,
    )


def test_results_are_named_by_as_much_of_their_path_as_tells_them_apart() -> None:
    paths = [Path("a/node.json"), Path("b/node.json"), Path("b/hub.json"), Path("hub.json")]
    names = [each.name for each in named(paths, [result()] * 4)]
    assert names == ["a/node", "b/node", "b/hub", "hub"]


def test_figures_are_matched_by_key_whatever_their_groups_are_called() -> None:
    first = result(groups=[group("One", [figure("a", 1), figure("b", 2)], sides=("x", "y"))])
    second = result(groups=[group("Other", [figure("b", 3)]), group("More", [figure("c", 4)])])
    (section,) = sections([Named("first", first), Named("second", second)])
    told = {
        table.title: [[each and each.value for each in row.values] for row in table.rows]
        for table in section.tables
    }
    assert told == {"One": [[1, None], [2, 3]], "More": [[None, 4]]}
    assert [table.sides for table in section.tables] == [(), ()], "sides are of one result alone"


def test_each_benchmark_has_a_section_with_what_to_know_of_it() -> None:
    doubtful = result("hub", refusals=[Remark(code="r", text="bad")], interrupted=True)
    found = sections([Named("one", result()), Named("two", doubtful), Named("three", result())])
    assert [(each.benchmark, [member.name for member in each.members]) for each in found] == [
        ("node", ["one", "three"]),
        ("hub", ["two"]),
    ]
    assert [(name, remark.code) for name, remark in found[1].refusals] == [("two", "r")]
    assert [remark.code for _, remark in found[1].remarks] == ["interrupted"]


def test_plots_of_one_key_lie_over_each_other_and_others_do_not() -> None:
    first = result(plots=[curve("c", "p50", [1.0, 2.0], marks={"knee": 2.0}), bars(["one", "two"], [1, 2])])
    second = result(
        plots=[curve("c", "p50", [2.0, 3.0]), bars(["two", "three"], [5, 6]), curve("d", "", [1.0])]
    )
    (section,) = sections([Named("A", first), Named("B", second)])
    curves, labelled, alone = section.drawings
    assert [series.name for series in curves.series] == ["A: p50", "B: p50"]
    assert curves.marks == (Mark("knee", 0, 2.0),)
    assert labelled.x.labels == ["one", "two", "three"]
    assert [series.line.x for series in labelled.series] == [[0.0, 1.0], [1.0, 2.0]]
    assert [(series.name, series.owner) for series in alone.series] == [("B", 1)]


def test_the_same_key_in_another_unit_is_another_drawing() -> None:
    first, second = curve("c", "", [1.0]), curve("c", "", [1.0])
    in_seconds = Plot(
        key="c", title="c", kind="curve", x=second.x, y=Axis(name="TTFT", unit="s"), lines=second.lines
    )
    (section,) = sections([Named("A", result(plots=[first])), Named("B", result(plots=[in_seconds]))])
    assert len(section.drawings) == 2


def test_a_drawing_is_told_in_words_and_numbers() -> None:
    first, second = result(plots=[bars(["one", "two"], [1.5, 2])]), result(plots=[bars(["two"], [7])])
    (section,) = sections([Named("A", first), Named("B", second)])
    (drawing,) = section.drawings
    assert sentence(drawing) == "Bars: value (s) of A, B."
    assert numbers(drawing).rows == (("one", "1.50", ""), ("two", "2.00", "7.00"))


def test_a_distribution_is_told_by_its_percentiles_and_a_timeline_by_its_range() -> None:
    share = Line(
        name="all", x=[float(each) for each in range(1, 101)], y=[each / 100 for each in range(1, 101)]
    )
    plots = [
        Plot(
            key="c",
            title="C",
            kind="cdf",
            x=Axis(name="TTFT", unit="ms"),
            y=Axis(name="share"),
            lines=[share],
        ),
        Plot(
            key="t",
            title="T",
            kind="timeline",
            x=Axis(name="time", unit="s"),
            y=Axis(name="rate"),
            lines=[share],
        ),
    ]
    (section,) = sections([Named("A", result(plots=plots))])
    cdf, timeline = (numbers(drawing) for drawing in section.drawings)
    assert cdf.columns == ("TTFT (ms)", "p50", "p90", "p99")
    assert cdf.rows == (("all", "50.0", "90.0", "99.0"),)
    assert timeline.rows == (("all", "0.010", "0.505", "1"),)
    assert sentence(section.drawings[0]) == "Distribution: share by TTFT (ms) of all."


def test_of_a_long_curve_some_points_are_told() -> None:
    line = curve(
        "c",
        "p50",
        [float(each) for each in range(100)],
    )
    (section,) = sections([Named("A", result(plots=[line]))])
    rows = numbers(section.drawings[0]).rows
    assert len(rows) <= 24
    assert rows[1] == ("5", "50.0")
