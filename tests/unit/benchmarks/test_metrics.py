"""The figures by their definitions, on samples small enough to work out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.metrics import e2el, measure, measure_all, tpot, ttft
from benchmarks.generator.driving import Run
from tests.unit.benchmarks.samples import answered, failed


def test_one_request_by_hand() -> None:
    sample = answered(1.0, [3.0, 4.0, 7.0], tokens=5)
    assert ttft(sample) == 2.0
    assert e2el(sample) == 6.0
    assert tpot(sample) == (6.0 - 2.0) / (5 - 1)


def test_gaps_are_pooled_and_the_rest_is_per_request() -> None:
    run = Run(0.0, 10.0, [answered(0.0, [1.0, 2.0, 4.0], tokens=3), answered(5.0, [8.0, 10.0], tokens=2)])
    metrics = measure(run)
    assert metrics.itl is not None
    assert (metrics.itl.count, metrics.itl.mean) == (3, 5 / 3)
    assert metrics.ttft is not None
    assert metrics.ttft.mean == 2.0
    assert metrics.tpot is not None
    assert metrics.tpot.mean == (1.5 + 2.0) / 2
    assert (metrics.output_tokens_per_s, metrics.requests_per_s) == (0.5, 0.2)
    assert (metrics.prompt_tokens, metrics.counted_by) == (20, "usage")


def test_a_single_token_has_no_time_per_output_token() -> None:
    assert tpot(answered(0.0, [1.0], tokens=1)) is None
    assert measure(Run(0.0, 1.0, [answered(0.0, [1.0], tokens=1)])).tpot is None


def test_failures_are_counted_by_kind_and_measured_by_nothing() -> None:
    metrics = measure(
        Run(0.0, 2.0, [failed("timeout"), failed("timeout"), failed("dns"), answered(0.0, [1.0])])
    )
    assert (metrics.completed, metrics.failed) == (1, 3)
    assert metrics.errors == {"timeout": 2, "dns": 1}
    assert metrics.error_detail["dns"] == "about dns"
    assert metrics.e2el is not None
    assert metrics.e2el.count == 1


@pytest.mark.parametrize(
    ("tokens", "counted_by"),
    [([], "none"), ([2], "usage"), ([None], "chunks"), ([2, None], "both")],
)
def test_it_is_said_who_counted(tokens: list[int | None], counted_by: str) -> None:
    samples = [answered(0.0, [1.0, 2.0], count) for count in tokens]
    assert measure(Run(0.0, 2.0, samples)).counted_by == counted_by


def test_nothing_measured_is_no_zero() -> None:
    metrics = measure(Run(3.0, 3.0))
    assert (metrics.ttft, metrics.e2el, metrics.output_tokens_per_s) == (None, None, 0.0)


times = st.floats(0.001, 100, allow_nan=False)


@given(st.floats(0, 100), st.lists(times, min_size=2, max_size=30))
def test_the_terms_add_up(start: float, steps: list[float]) -> None:
    arrivals = [start + sum(steps[: count + 1]) for count in range(len(steps))]
    sample = answered(start, arrivals, tokens=len(arrivals))
    first, whole, each = ttft(sample), e2el(sample), tpot(sample)
    assert first is not None
    assert whole is not None
    assert each is not None
    assert first + each * (len(arrivals) - 1) == pytest.approx(whole)
    assert first + sum(sample.gaps) == pytest.approx(whole)


def test_runs_pool_as_if_they_had_been_one() -> None:
    one = Run(0.0, 2.0, [answered(0.0, [1.0, 2.0], tokens=2)])
    other = Run(10.0, 14.0, [answered(10.0, [11.0, 14.0], tokens=4)], unfinished=1, interrupted=True)
    both = measure_all([one, other])
    assert (both.duration_s, both.output_tokens, both.completed) == (6.0, 6, 2)
    assert (both.unfinished, both.interrupted) == (1, True)
