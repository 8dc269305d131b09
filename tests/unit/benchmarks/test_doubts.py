"""What makes a run hard to believe: each doubt arises, and does not where it should not."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures import doubts
from benchmarks.figures.doubts import Doubt
from benchmarks.figures.metrics import measure
from benchmarks.figures.statistics import least_samples, summarise
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from tests.unit.benchmarks.samples import answered, failed

GOOD = answered(0.0, [0.5, 0.6, 0.7, 0.8, 0.9, 1.0], tokens=6)


def codes(found: Sequence[Doubt]) -> dict[str, bool]:
    return {doubt.code: doubt.refuses for doubt in found}


def about(sample: Sample, good: int = 0, *, ignore_eos: bool = True) -> dict[str, bool]:
    samples = [sample, *[GOOD] * good]
    return codes([*doubts.about_answers(samples, ignore_eos=ignore_eos), *doubts.about_chunks(samples)])


def test_a_sound_run_raises_none() -> None:
    assert about(GOOD) == {}
    assert doubts.about_errors([GOOD] * 100 + [failed("timeout")], 0.01) == []
    assert doubts.about_stalls(doubts.find_stalls([GOOD])) == []
    assert doubts.about_clock(0.05, 100.0) == doubts.about_clock(0.5, 1000.0) == []
    assert doubts.about_generator([0.5, 0.7], 10.0) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"output_tokens": 5, "asked_tokens": 5}, "usage_below_chunks"),
        ({"asked_tokens": 5}, "usage_over_max_tokens"),
        ({"prompt_tokens": 0}, "usage_without_prompt"),
        ({"asked_tokens": 7}, "answers_short"),
        ({"content_bytes": 3}, "usage_above_content"),
        ({"gaps": (0.0,) * 5}, "stream_buffered"),
        ({"empty_chunks": 6}, "empty_chunks"),
    ],
)
def test_an_endpoint_that_lies_is_refused(changes: dict[str, object], code: str) -> None:
    odd = replace(GOOD, **changes)  # type: ignore[arg-type]
    assert about(odd) == {code: True}
    assert (
        about(odd, good=200).get(code, False) is False
    )  # one in two hundred is told, or vanishes in the sum


def test_lengths_are_the_endpoints_own_where_nobody_asked_to_ignore_the_end() -> None:
    assert about(replace(GOOD, asked_tokens=7), ignore_eos=False) == {}


def test_without_usage_nothing_is_held_against_it() -> None:
    assert about(replace(GOOD, counted=False, asked_tokens=5, output_tokens=6, content_bytes=0)) == {}


def test_invisible_tokens_may_have_chunks_of_their_own() -> None:
    assert about(replace(GOOD, content_bytes=3, empty_chunks=1)) == {"empty_chunks": True}


def test_few_chunks_may_come_in_one_read() -> None:
    assert about(answered(0.0, [0.5] * 4, tokens=4)) == {}


def test_bunches_are_told() -> None:
    bunched = answered(0.0, [0.5, 0.5, 0.5, 0.7, 0.7, 0.7], tokens=6)
    assert about(bunched) == {"chunks_bunched": False}


def test_failures_over_the_bound() -> None:
    samples = [GOOD] * 97 + [failed("timeout")] * 3
    assert codes(doubts.about_errors(samples, 0.02)) == {"errors_over_bound": True}
    assert doubts.about_errors(samples, 0.03) == []


def test_a_stall_is_found_among_thousands_of_gaps() -> None:
    stalled = answered(0.0, [0.1, 0.12, 2.12, 2.14], tokens=4)
    found = doubts.find_stalls([answered(0.0, [0.02 * n for n in range(1, 1000)]), stalled])
    assert (found.count, found.longest_s) == (1, pytest.approx(2.0))
    assert "longest took 2.00 s" in doubts.about_stalls(found)[0].text


def test_a_slow_engine_does_not_stall_all_the_time() -> None:
    assert doubts.find_stalls([answered(0.0, [1.0 * n for n in range(1, 9)])]).count == 0


@given(st.floats(0.1, 99.99))
def test_a_percentile_takes_so_many_samples_that_one_lies_beyond_it(percent: float) -> None:
    least = least_samples(percent)
    assert (percent / 100) ** least <= 0.05 + 1e-9
    assert (percent / 100) ** (least - 1) > 0.05 - 1e-9


def test_percentiles_of_too_few_samples() -> None:
    some = summarise([1.0] * 299)
    assert doubts.about_percentiles(some, [50, 99]) == []
    assert codes(doubts.about_percentiles(some, [50, 99.9])) == {"too_few_samples": True}
    assert codes(doubts.about_percentiles(None, [50])) == {"too_few_samples": True}


def test_a_busy_generator() -> None:
    assert codes(doubts.about_generator([0.2, 0.9], 10.0)) == {"generator_busy": False}
    assert codes(doubts.about_generator([0.2, 0.97], 10.0)) == {"generator_saturated": True}
    assert doubts.about_generator([1.0], 0.1) == []


@pytest.mark.parametrize(
    ("lags", "found"),
    [
        ([0.001] * 200, {}),
        ([0.2] * 30 + [0.001] * 170, {"late": True}),  # of a latency of 0.1 s
        ([0.2] * 10 + [0.001] * 190, {"late": False}),
        ([0.04] * 20, {"late": False}),  # too few to judge by
        ([0.2] * 20, {"late": True}),  # few, since it was late all the time
    ],
)
def test_a_late_generator(lags: list[float], found: dict[str, bool]) -> None:
    told = doubts.about_lag(summarise(lags), measure(Run(0.0, 1.0, [GOOD])), code="late", what="Late")
    assert codes(told) == found


def test_a_long_latency_bears_a_lag() -> None:
    slow = measure(Run(0.0, 30.0, [answered(0.0, [10.0], tokens=1)]))
    assert codes(doubts.about_lag(summarise([0.2] * 200), slow, code="late", what="Late")) == {"late": False}


@pytest.mark.parametrize(("jump", "seconds"), [(0.2, 10.0), (-1.0, 10.0), (3600.0, 10.0), (2.0, 1000.0)])
def test_clock_jumps(jump: float, seconds: float) -> None:
    assert codes(doubts.about_clock(jump, seconds)) == {"clock_jumped": True}
