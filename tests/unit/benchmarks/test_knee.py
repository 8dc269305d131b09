"""The knee of a ramp."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.knee import Point, find_knee


def ramp(*points: tuple[float, float | None]) -> list[Point]:
    return [Point(2.0**number, throughput, latency) for number, (throughput, latency) in enumerate(points)]


@given(st.integers(1, 10), st.floats(0.001, 10), st.integers(12, 20))
def test_of_a_server_that_takes_so_many_at_once_and_no_more(bits: int, service_s: float, steps: int) -> None:
    # A server of 2**bits slots: below them latency is the service time, above them throughput is full.
    slots = 2**bits
    levels = [2**number for number in range(steps)]
    points = [
        Point(level, min(level, slots) / service_s, service_s * max(1.0, level / slots)) for level in levels
    ]
    found = find_knee(points)
    assert found.index is not None
    assert points[found.index].level == slots


@pytest.mark.parametrize(
    ("points", "why"),
    [
        ([], "three steps"),
        ([(1.0, 1.0), (2.0, 1.0)], "three steps"),
        ([(1.0, 1.0), (2.0, 1.0), (4.0, 1.0)], "still rises"),
        ([(4.0, 1.0), (4.0, 2.0), (4.0, 4.0)], "from the first step"),
        ([(0.0, None), (0.0, None), (0.0, None)], "no step was answered"),
    ],
)
def test_where_there_is_none_it_is_said_why(points: list[tuple[float, float | None]], why: str) -> None:
    found = find_knee(ramp(*points))
    assert found.index is None
    assert why in found.why
