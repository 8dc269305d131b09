"""`x-ratelimit-…` as OpenAI's clients read them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.rate_headers import duration, rate_headers
from hub.quotas import Standing

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def read(text):
    """What a client makes of a duration."""
    parts = re.findall(r"([\d.]+)(ms|h|m|s)", text)
    assert "".join(f"{number}{unit}" for number, unit in parts) == text
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def test_each_limit_that_there_is_has_its_three():
    assert rate_headers(None, None) == []
    found = dict(rate_headers(Standing(60, 59, 1.0), Standing(150_000, 149_984, 0.0064)))
    assert found == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"150000",
        b"x-ratelimit-remaining-tokens": b"149984",
        b"x-ratelimit-reset-tokens": b"7ms",
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        *((-1.0, "0s"), (0.0, "0s"), (0.12, "120ms"), (0.9999, "1s"), (1.0, "1s"), (8.64, "8.64s")),
        *((59.9999, "1m0s"), (60.0, "1m0s"), (360.0, "6m0s"), (61.5, "1m1.5s"), (3_600.0, "1h0m0s")),
    ],
)
def test_a_duration_is_written_as_go_does(seconds, text):
    assert duration(seconds) == text


@given(st.floats(0, 1e7))
def test_it_is_never_too_short_and_by_no_more_than_a_millisecond_too_long(seconds):
    assert -2e-6 <= read(duration(seconds)) - seconds <= 0.001 + 1e-6
