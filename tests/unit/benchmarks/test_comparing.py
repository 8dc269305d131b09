"""Two results side by side: which figures are said to differ, and how often that is wrong."""

import io
import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from rich.console import Console

from benchmarks.errors import NotComparable
from benchmarks.figures.bounds import RATIO, Better, Figure
from benchmarks.figures.statistics import Interval, median
from benchmarks.reports import compare_page
from benchmarks.reports.comparing import Comparison, Row, Verdict, Wanted, compare
from benchmarks.reports.result import Made, Remark, Result, group

ALL = Wanted()
MACHINE: dict[str, object] = {
    "machine": "x86_64",
    "cpu": "One",
    "cpu_count": 2,
    "cpu_usable": 2,
    "porten": "1.0",
}


def over(values: list[float]) -> Interval:
    return Interval(median(values), min(values), max(values), 0.95, tuple(values))


def figure(key: str, found: Any, unit: str = "ms", better: Better = Better.LESS) -> Figure:
    told = over(found) if isinstance(found, list) else found
    return Figure(key=key, name=key.title(), unit=unit, found=told, which_is_better=better)


def result(*figures: Figure, benchmark: str = "node", **more: Any) -> Result:
    made = Made(
        at="", command=[], environment=more.pop("environment", MACHINE), quick=more.pop("quick", False)
    )
    settings = more.pop("settings", {"rounds": 10})
    return Result(
        benchmark=benchmark, made=made, settings=settings, groups=[group("All", list(figures))], **more
    )


def rows(first: Result, second: Result, wanted: Wanted = ALL) -> dict[str, Row]:
    return {row.key: row for row in compare(first, second, wanted).rows}


def codes(found: Comparison) -> list[str]:
    return [warning.code for warning in found.warnings]


def one(first: Figure, second: Figure, wanted: Wanted = ALL) -> Row:
    (row,) = rows(result(first), result(second), wanted).values()
    return row


TEN = [100.0, 101, 99, 102, 98, 103, 97, 100.5, 99.5, 101.5]


# --- verdicts


@pytest.mark.parametrize(
    ("factor", "better", "verdict"),
    [
        (1.1, Better.LESS, Verdict.WORSE),
        (1.1, Better.MORE, Verdict.BETTER),
        (0.9, Better.LESS, Verdict.BETTER),
        (0.9, Better.MORE, Verdict.WORSE),
        (0.9, Better.NEITHER, Verdict.DIFFERENT),
        (1.001, Better.LESS, Verdict.SAME),
    ],
)
def test_a_figure_is_better_or_worse_by_its_own_direction(
    factor: float, better: Better, verdict: Verdict
) -> None:
    row = one(figure("f", TEN, better=better), figure("f", [factor * each for each in TEN], better=better))
    assert row.verdict is verdict
    assert row.change is not None
    assert (row.change.unit, row.change.value) == (RATIO, pytest.approx(factor, rel=0.01))
    assert row.change.low is not None
    assert row.change.high is not None
    assert row.change.low <= factor <= row.change.high


@pytest.mark.parametrize(
    ("first", "second", "reason"),
    [
        (100.0, 200.0, "single values"),
        (TEN, 200.0, "single values"),
        ([1.0, 2.0, 3.0], [7.0, 8.0, 9.0], "too few rounds, 3 and 3"),
        (None, 1.0, "nothing measured"),
    ],
)
def test_what_cannot_be_told_says_why(first: Any, second: Any, reason: str) -> None:
    row = one(figure("f", first), figure("f", second))
    assert (row.verdict, row.reason, row.p) == (Verdict.UNTOLD, reason, None)


def test_what_other_objectives_call_good_is_not_compared() -> None:
    twice = [2 * each for each in TEN]
    strict, lax, old = (
        result(replace(figure("goodput", values, unit=""), objective=objective))
        for values, objective in ((TEN, "ttft=300ms"), (twice, "ttft=5s"), (twice, ""))
    )
    (row,) = rows(strict, lax).values()
    assert (row.verdict, row.reason, row.change) == (Verdict.UNTOLD, "other objectives", None)
    (row,) = rows(strict, strict).values()
    assert row.verdict is Verdict.SAME
    (row,) = rows(strict, old).values()  # an old result does not say what it calls good
    assert row.verdict is Verdict.WORSE


def test_another_unit_is_no_change() -> None:
    row = one(figure("f", TEN, "ms"), figure("f", TEN, "s"))
    assert (row.verdict, row.reason, row.change) == (Verdict.UNTOLD, "B is in s", None)


def test_what_may_be_zero_is_told_as_a_difference() -> None:
    row = one(figure("f", [each - 100 for each in TEN]), figure("f", [each - 90 for each in TEN]))
    assert row.change is not None
    assert (row.change.unit, row.change.value, row.verdict) == ("ms", pytest.approx(10), Verdict.WORSE)


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.08, Verdict.SAME), (1.25, Verdict.WORSE), (0.8, Verdict.BETTER)]
)
@pytest.mark.parametrize("moved", [0.0, -200.0])
def test_a_change_within_the_margin_is_none(factor: float, verdict: Verdict, moved: float) -> None:
    first, second = TEN, [factor * each for each in TEN]
    if moved:  # as a difference: the margin is a share of A's median, here 100 of -100
        first, second = ([each + moved for each in values] for values in (first, second))
    assert one(figure("f", first), figure("f", second)).verdict is not Verdict.SAME
    assert one(figure("f", first), figure("f", second), Wanted(margin=0.1)).verdict is verdict


# --- how often it is wrong, and how often right


def draw(chance: random.Random, count: int, factor: float = 1.0, rounds: int = 10) -> Result:
    def values() -> list[float]:
        return [100 * factor * chance.lognormvariate(0, 0.03) for _ in range(rounds)]

    return result(*(figure(f"f{number}", values()) for number in range(count)))


def test_two_runs_of_the_same_are_told_apart_as_seldom_as_is_said() -> None:
    chance, runs = random.Random(1), 200
    false = 0
    for _ in range(runs):
        found = compare(draw(chance, 20), draw(chance, 20), Wanted())
        false += found.count(Verdict.SAME) < 20
    assert 0.01 <= false / runs <= 0.085, "5 %, less what ranks come in steps, more or less by chance"


def test_uncorrected_they_would_be_told_apart_most_of_the_time() -> None:
    chance, runs = random.Random(1), 100
    compared = [compare(draw(chance, 20), draw(chance, 20), Wanted()) for _ in range(runs)]
    alone = sum(any(row.p is not None and row.p <= 0.05 for row in found.rows) for found in compared)
    assert 0.5 <= alone / runs <= 0.75  # 1 - 0.95 ** 20 is 0.64


def test_a_tenth_more_is_found() -> None:
    chance = random.Random(2)
    for _ in range(10):
        found = compare(draw(chance, 20), draw(chance, 20, factor=1.1), Wanted())
        assert found.count(Verdict.WORSE) >= 19


def test_a_tenth_more_of_one_figure_is_found_among_many_that_stay() -> None:
    chance, hits, false = random.Random(3), 0, 0
    for _ in range(50):
        (_, worse), *_ = result(
            figure("worse", [110 * chance.lognormvariate(0, 0.03) for _ in range(10)])
        ).figures()
        first, second = draw(chance, 20), draw(chance, 19)
        renamed = msgspec.structs.replace(worse, key="f19")
        groups = [msgspec.structs.replace(second.groups[0], figures=[*second.groups[0].figures, renamed])]
        found = compare(first, msgspec.structs.replace(second, groups=groups), Wanted())
        verdicts = {row.key: row.verdict for row in found.rows}
        hits += verdicts.pop("f19") is Verdict.WORSE
        false += sum(verdict is not Verdict.SAME for verdict in verdicts.values())
    assert hits >= 45
    assert false <= 6, "one in twenty of what is called, over 50 runs of 19 figures"


# --- what keeps two results apart


def test_results_of_two_benchmarks_are_not_compared() -> None:
    with pytest.raises(NotComparable, match="'node' and B of 'hub'"):
        compare(result(figure("f", TEN)), result(figure("f", TEN), benchmark="hub"), Wanted())


def test_nothing_in_common_is_told() -> None:
    with pytest.raises(NotComparable, match="no figure in common"):
        compare(result(figure("f", TEN)), result(figure("g", TEN)), Wanted())
    with pytest.raises(NotComparable, match="no figure in common"):
        compare(result(figure("f", TEN)), result(figure("f", TEN)), Wanted(figures=("g*",)))


def test_the_same_twice_warns_of_nothing() -> None:
    found = compare(result(figure("f", TEN)), result(figure("f", TEN)), Wanted())
    assert found.warnings == []
    assert not found.refused


def test_every_way_in_which_two_results_came_about_is_told() -> None:
    refusal = Remark(code="generator_saturated", text="the meter was slow")
    second = result(
        figure("f", TEN),
        environment=MACHINE | {"porten": "2.0", "libraries": {"uvloop": "1"}, "load_average_1m": 3.0},
        settings={"rounds": 10, "workload": {"prompt_tokens": 9, "seed": 4}},
        quick=True,
        interrupted=True,
        refusals=[refusal],
    )
    found = compare(result(figure("f", TEN)), second, Wanted())
    assert codes(found) == ["refused", "quick", "interrupted", "other_versions", "other_settings"]
    text = " ".join(warning.text for warning in found.warnings)
    for words in (
        "the meter was slow",
        "porten 1.0 | 2.0",
        "libraries.uvloop - | 1",
        "workload.prompt_tokens - | 9",
    ):
        assert words in text
    assert "seed" not in text
    assert "load_average" not in text
    assert found.refused


def test_across_machines_only_ratios_are_compared() -> None:
    figures = (figure("time", TEN), figure("ratio", TEN, RATIO))
    first, second = result(*figures), result(*figures, environment=MACHINE | {"cpu": "Other"})
    found = compare(first, second, Wanted())
    assert ([row.key for row in found.rows], found.left_out) == (["ratio"], ["time"])
    assert codes(found) == ["other_machine", "left_out"]
    assert "cpu One | Other" in found.warnings[0].text
    assert len(compare(first, second, Wanted(everything=True)).rows) == 2
    with pytest.raises(NotComparable, match="--all"):
        compare(first, second, Wanted(figures=("time",)))


def test_a_machine_that_is_not_told_is_another() -> None:
    unknown = result(figure("f", TEN, RATIO), environment={})
    assert codes(compare(unknown, unknown, Wanted())) == ["other_machine"]


def test_what_only_one_has_is_told() -> None:
    first, second = result(figure("f", TEN), figure("a", TEN)), result(figure("f", TEN), figure("b", TEN))
    found = compare(first, second, Wanted())
    assert (found.only_a, found.only_b) == (["a"], ["b"])


def test_too_few_rounds_for_so_many_figures_is_told() -> None:
    chance = random.Random(4)
    few = compare(draw(chance, 30, rounds=5), draw(chance, 30, rounds=5), Wanted())
    assert codes(few) == ["few_rounds"]
    assert "of 30 figures" in few.warnings[0].text
    assert "measure 7 or more" in few.warnings[0].text
    assert codes(compare(draw(chance, 30, rounds=7), draw(chance, 30, rounds=7), Wanted())) == []


# --- how it is shown


def whole() -> Comparison:
    first = result(figure("slow|er", TEN), figure("one", 1.0), figure("only", TEN))
    second = result(figure("slow|er", [1.2 * each for each in TEN]), figure("one", 2.0), quick=True)
    return compare(first, second, Wanted(margin=0.05))


def test_the_page_shows_figures_changes_and_verdicts() -> None:
    text = io.StringIO()
    compare_page.show(Console(file=text, width=160), whole())
    for words in (
        "made with --quick",
        "1.200 x",
        "worse",
        "single values",
        "1 worse, 1 cannot be told",
        "Only in A: only",
    ):
        assert words in text.getvalue()


def test_markdown_holds_the_same_and_is_no_markup() -> None:
    text = compare_page.markdown(whole(), "a<b>.json", "b.json")
    assert "## node: b.json against a\\<b\\>.json" in text
    assert "- **quick**:" in text
    (row,) = (line for line in text.splitlines() if line.startswith("| Slow"))
    assert row.startswith("| Slow\\|Er | 100 ms | 120 ms | 1.200 x |")
    assert row.endswith("| worse |")


def test_the_document_is_read_by_programs() -> None:
    told = msgspec.json.decode(msgspec.json.encode(whole()))
    assert told["schema"] == "porten.compare/1"
    assert {row["key"]: row["verdict"] for row in told["rows"]} == {
        "slow|er": "worse",
        "one": "cannot be told",
    }
