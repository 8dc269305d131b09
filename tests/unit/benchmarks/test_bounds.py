"""Figures against their bounds."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks import figures
from benchmarks.bounds import RATIO, Bound, Figure, Verdict, scaled
from benchmarks.statistics import Interval


def interval(low: float, high: float, *, rounds: int = 10) -> Interval:
    return Interval((low + high) / 2, low, high, 0.95, rounds)


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        (Bound(1.15), 1.0, 1.15, Verdict.KEPT),
        (Bound(1.15), 1.1, 1.2, Verdict.UNCLEAR),
        (Bound(1.15), 1.16, 1.2, Verdict.MISSED),
        (Bound(0.97, at_least=True), 0.97, 1.01, Verdict.KEPT),
        (Bound(0.97, at_least=True), 0.96, 0.98, Verdict.UNCLEAR),
        (Bound(0.97, at_least=True), 0.90, 0.96, Verdict.MISSED),
    ],
)
def test_an_interval_must_lie_wholly_on_one_side(
    bound: Bound, low: float, high: float, verdict: Verdict
) -> None:
    assert bound.judge(interval(low, high)) is verdict


def test_a_few_rounds_say_nothing() -> None:
    assert Bound(2.0).judge(interval(1.0, 1.0, rounds=4)) is Verdict.UNCLEAR
    assert Bound(2.0).judge(interval(1.0, 1.0, rounds=5)) is Verdict.KEPT


@given(st.floats(0, 10), st.floats(0, 10), st.booleans())
def test_a_single_figure_is_kept_or_missed(limit: float, value: float, at_least: bool) -> None:
    keeps = value >= limit if at_least else value <= limit
    assert Bound(limit, at_least=at_least).judge(value) is (Verdict.KEPT if keeps else Verdict.MISSED)


def test_an_interval_in_another_unit() -> None:
    found = scaled(interval(0.001, 0.003), 1000)
    assert found is not None
    assert (found.low, found.median, found.high, found.count) == (1.0, 2.0, 3.0, 10)
    assert scaled(None, 1000) is None


FIGURES = [
    Figure("tokens/s", RATIO, interval(0.5, 0.75), Bound(0.97, at_least=True), "100.0", "62.5"),
    Figure("CPU", "%", 0.23, Bound(0.5)),
    Figure("TTFT", "ms", None, Bound(1.0)),
]


def test_figures_are_shown_beside_their_bounds() -> None:
    page = io.StringIO()
    figures.show(Console(file=page, width=120), "Engine on 2 of 2 cores", FIGURES)
    rows = {line.split("│")[1].strip(): line for line in page.getvalue().splitlines() if "│" in line}
    cells = {name: [cell.strip() for cell in row.split("│")[2:-1]] for name, row in rows.items()}
    assert cells["tokens/s"] == ["100.0", "62.5", "0.625 x", "0.500 to 0.750", ">= 0.97", "missed"]
    assert cells["CPU"] == ["", "", "0.23 %", "", "<= 0.5", "kept"]
    assert cells["TTFT"] == ["", "", "-", "", "<= 1", ""]


def test_figures_are_written_with_their_verdicts() -> None:
    ratio, share, nothing = figures.document(FIGURES)
    assert ratio["found"] == {"median": 0.625, "low": 0.5, "high": 0.75, "confidence": 0.95, "rounds": 10}
    assert (ratio["bound"], ratio["verdict"]) == ({"limit": 0.97, "at_least": True}, "missed")
    assert (share["found"], share["unit"], share["verdict"]) == (0.23, "%", "kept")
    assert (nothing["found"], nothing["verdict"]) == (None, None)
