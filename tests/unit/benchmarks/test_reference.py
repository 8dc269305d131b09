"""This project's own figures: what is told is what was measured, and a ratio that falls is noticed."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from benchmarks.errors import BenchmarkError, SettingInvalid
from benchmarks.figures.bounds import RATIO, Better
from benchmarks.reference import __main__ as command
from benchmarks.reference import gate, tables
from benchmarks.reference.running import Place, measure, read_all
from benchmarks.reference.suite import RATIOS, SUITE, Measurement, named
from benchmarks.reports import result
from benchmarks.reports.result import Group, Limit, Made, Remark, Result, Value

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "benchmarks" / "results"
MEASURED = read_all([each.name for each in SUITE], RESULTS)


def ratio(key: str, value: float | None, better: Better = Better.MORE, unit: str = RATIO) -> Value:
    return Value(key=key, name=key, unit=unit, better=better, value=value)


def made(*figures: Value, benchmark: str = "overhead") -> Result:
    how = Made(
        at="2026-11-30T12:00:00+00:00",
        command=["porten-bench", benchmark, "--data-dir", "somewhere", "--rounds", "5", "--json", "x.json"],
        environment={
            "cpu": "Fast",
            "cpu_usable": 2,
            "memory_bytes": 8 << 30,
            "python": "3.11",
            "porten": "1",
        },
    )
    return Result(
        benchmark=benchmark, made=how, settings={}, groups=[Group(title="All", figures=list(figures))]
    )


# --- what is claimed


def test_the_page_of_all_figures_is_written_from_the_results() -> None:
    assert (RESULTS / "README.md").read_text() == tables.page(SUITE, MEASURED)


@pytest.mark.parametrize("page", command.PAGES, ids=str)
def test_a_page_claims_what_was_measured(page: Path) -> None:
    text = (ROOT / page).read_text()
    assert text == tables.fill_in(text, tables.claims(MEASURED))


def test_every_benchmark_of_the_suite_was_measured() -> None:
    assert list(MEASURED) == [each.name for each in SUITE]
    assert not any(found.made.quick or found.interrupted or found.refusals for found in MEASURED.values())


@pytest.mark.parametrize("claim", tables.CLAIMS, ids=lambda claim: claim.key)
def test_a_claim_names_a_figure_that_is_measured(claim: tables.Claim) -> None:
    figures = {figure.key: figure for _, figure in MEASURED[claim.result].figures()}
    assert figures[claim.key].value is not None


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("*.json")), ids=lambda file: file.stem)
def test_no_path_of_a_machine_is_kept(file: Path) -> None:
    assert re.findall(r'(?<![\w.])/(?:home|root|tmp|work|Users|var)/[^"]*', file.read_text()) == []


def test_a_table_is_written_between_its_marks_and_nowhere_else() -> None:
    text = "before\n<!-- figures: begin, by make bench -->\nold\n<!-- figures: end -->\nafter\n"
    filled = tables.fill_in(text, "| new |\n")
    assert filled == text.replace("old", "| new |")
    assert tables.fill_in(filled, "| new |\n") == filled
    for wrong in ("no marks", text + text):
        with pytest.raises(ValueError, match="one `<!-- figures"):
            tables.fill_in(wrong, "")


def test_a_page_tells_command_machine_figures_bounds_and_remarks() -> None:
    figure = Value(
        key="a", name="CPU | all", unit="s", better="less", value=0.25, low=0.2, high=0.3,
        bound=Limit(value=0.35, verdict="kept"),
    )  # fmt: skip
    found = made(figure, ratio("b", None))
    found = result.Result(
        **{name: getattr(found, name) for name in ("benchmark", "made", "settings", "groups")},
        remarks=[Remark(code="x", text="One word.")],
    )
    text = tables.page([Measurement("hub", (), "About the Hub", 1)], {"hub": found})
    assert "`porten-bench overhead --rounds 5`, 2026-11-30; [hub.json](hub.json)" in text
    assert "2 cores of Fast, 8 GiB, Python 3.11, Porten 1" in text
    assert "| CPU \\| all | 0.250 s | 0.200 to 0.300 | <= 0.35 | kept |" in text
    assert "| b | not measured |  |  |  |" in text
    assert "*One word.*" in text


def test_a_claim_that_was_not_measured_says_so() -> None:
    claim = tables.Claim("it is fast", "overhead", "a")
    assert "| it is fast | not measured |  |  |  |" in tables.claims({}, [claim])
    assert "| it is fast | not measured |  |  |  |" in tables.claims({"overhead": made()}, [claim])
    assert "| it is fast | 0.500 x |" in tables.claims({"overhead": made(ratio("a", 0.5))}, [claim])


# --- which are measured


def test_benchmarks_are_chosen_by_name_in_the_suites_order() -> None:
    assert named(()) == SUITE
    assert [each.name for each in named(("hub", "overhead"))] == ["overhead", "hub"]
    with pytest.raises(SettingInvalid, match="no benchmark 'speed'; there are: overhead"):
        named(("speed",))


def test_all_of_it_is_below_half_an_hour() -> None:
    assert sum(each.minutes for each in (*SUITE, *RATIOS)) < 30


def test_a_run_that_fails_leaves_the_result_before_it(tmp_path: Path) -> None:
    place = Place(tmp_path, tmp_path)
    place.file("wrong").write_text("before")
    wrong = Measurement("wrong", ("overhead", "--peers", "squid"), "", 1)
    assert measure([wrong], place, command.Console(quiet=True)) == ["wrong"]
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


# --- what fails a build


def test_a_ratio_is_judged_by_the_sense_it_has() -> None:
    before = made(ratio("rate", 0.5), ratio("cost", 4.0, Better.LESS))
    keys = ("rate", "cost")
    worse = gate.judge(before, made(ratio("rate", 0.25), ratio("cost", 8.0, Better.LESS)), keys)
    assert [each.worse for each in worse] == [2.0, 2.0]
    assert all(each.has_fallen for each in worse)
    better = gate.judge(before, made(ratio("rate", 1.0), ratio("cost", 2.0, Better.LESS)), keys)
    assert [each.worse for each in better] == [0.5, 0.5]
    assert [str(each).rpartition(": ")[2] for each in (worse[0], better[0])] == [
        "2.00 times as bad",
        "2.00 times as good",
    ]


def test_a_ratio_falls_with_its_whole_interval() -> None:
    before = made(ratio("rate", 1.0), ratio("cost", 1.0, Better.LESS))
    low, high = 0.9 / gate.MARGIN, 1.1 / gate.MARGIN
    for better, ends, falls in (
        (Better.MORE, (0.1, low), True),
        (Better.MORE, (0.1, high), False),
        (Better.LESS, (1 / low, 99.0), True),
        (Better.LESS, (1 / high, 99.0), False),
    ):
        key = "rate" if better is Better.MORE else "cost"
        wide = Value(key=key, name=key, unit=RATIO, better=better, value=ends[0], low=ends[0], high=ends[1])
        (judged,) = gate.judge(before, made(wide), (key,))
        assert judged.has_fallen is falls


@given(st.floats(0.01, 100), st.floats(0.01, 100))
def test_nothing_falls_within_the_margin(before: float, factor: float) -> None:
    (judged,) = gate.judge(made(ratio("a", before)), made(ratio("a", before * factor)), ("a",))
    assert judged.has_fallen == (judged.worse > gate.MARGIN)
    assert judged.worse == pytest.approx(1 / factor)


def test_a_ratio_that_is_measured_no_longer_is_no_pass() -> None:
    whole = made(ratio("rate", 0.5))
    for part in (made(), made(ratio("rate", None)), made(ratio("rate", 0.5, unit="ms"))):
        with pytest.raises(BenchmarkError, match="rate is no ratio in what was measured now"):
            gate.judge(whole, part, ("rate",))
        with pytest.raises(BenchmarkError, match="rate is no ratio in the reference"):
            gate.judge(part, whole, ("rate",))


@pytest.mark.parametrize("wanted", RATIOS, ids=lambda wanted: wanted.name)
def test_what_is_judged_is_in_the_reference(wanted: Measurement) -> None:
    reference = result.read(ROOT / command.REFERENCE / f"{wanted.name}.json")
    assert [each.worse for each in gate.judge(reference, reference, wanted.judged)] == [1.0] * len(
        wanted.judged
    )
    assert len(wanted.judged) == 4


Looks = Callable[..., list[tuple[str, ...]]]


@pytest.fixture
def looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Prepares the ratios that successive looks find; what each was asked for is kept."""

    def prepare(*found: float) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []
        names = ("a", "b")
        wanted = Measurement("ratios", (), "", 1, judged=names)
        result.write(made(*(ratio(name, 1.0) for name in names)), tmp_path / "ratios.json")

        def run(wanted: Measurement, file: Path, data: Path, more: tuple[str, ...] = ()) -> int:
            result.write(made(ratio("a", found[len(asked)]), ratio("b", 1.0)), file)
            asked.append(more)
            return 0

        monkeypatch.setattr(command, "run", run)
        monkeypatch.setattr(command, "REFERENCE", tmp_path)
        monkeypatch.setattr(command, "RATIOS", (wanted,))
        return asked

    return prepare


def test_a_build_passes_at_the_first_look(looks: Looks) -> None:
    asked = looks(1.1 / gate.MARGIN)
    assert CliRunner().invoke(command.app, ["check"]).exit_code == 0
    assert asked == [()]


def test_what_one_look_finds_another_with_more_rounds_may_not(looks: Looks) -> None:
    asked = looks(0.9 / gate.MARGIN, 0.99)
    assert CliRunner().invoke(command.app, ["check"]).exit_code == 0
    assert asked == [(), ("--rounds", "15")]


def test_a_ratio_that_stays_low_fails_the_build_and_is_named(looks: Looks) -> None:
    looks(0.9 / gate.MARGIN, 0.9 / gate.MARGIN)
    told = CliRunner().invoke(command.app, ["check"])
    assert told.exit_code == 1
    assert "fallen a: " in told.output
    assert "held   b: " in told.output
