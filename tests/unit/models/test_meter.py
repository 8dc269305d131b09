"""The limit on what a download takes of the line, on a clock of the test's own."""

import pytest

from models.sources.tether import Meter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_bytes_come_as_fast_as_the_limit_allows(clock: Clock) -> None:
    meter = Meter(1000.0, now=lambda: clock.now, sleep=clock.sleep)
    for _ in range(50):
        meter.take(100)
    assert clock.now == pytest.approx(5.0)


def test_time_in_which_nothing_came_is_not_saved_up(clock: Clock) -> None:
    meter = Meter(1000.0, now=lambda: clock.now, sleep=clock.sleep)
    clock.now = 60.0
    meter.take(1000)
    assert clock.now == pytest.approx(61.0)


def test_connections_share_the_line() -> None:
    waits: list[float] = []
    meter = Meter(1000.0, now=lambda: 0.0, sleep=waits.append)
    meter.take(500)
    meter.take(500)
    assert waits == [0.5, 1.0]
