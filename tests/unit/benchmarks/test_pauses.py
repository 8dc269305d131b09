"""Times to think."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.errors import SettingInvalid
from benchmarks.generator.pauses import Pause, parse_pause

seconds = st.floats(0, 1000, allow_subnormal=False)
pauses = st.one_of(
    seconds.map(lambda one: Pause("fixed", (one,))),
    seconds.map(lambda one: Pause("exponential", (one,))),
    st.tuples(seconds, seconds).map(lambda pair: Pause("uniform", (min(pair), max(pair)))),
    st.tuples(seconds, seconds).map(lambda pair: Pause("lognormal", pair)),
)


@given(pauses)
def test_a_pause_is_read_back_as_it_is_written(pause: Pause) -> None:
    assert parse_pause(str(pause)) == pause


@given(pauses, st.integers())
def test_nobody_thinks_for_less_than_no_time(pause: Pause, seed: int) -> None:
    chance = random.Random(seed)
    assert all(pause.draw(chance) >= 0 for _ in range(20))


@pytest.mark.parametrize(
    ("pause", "mean"),
    [
        (Pause("fixed", (2.0,)), 2),
        (Pause("exponential", (4.0,)), 4),
        (Pause("uniform", (1.0, 3.0)), 2),
        (Pause("lognormal", (2.0, 50.0)), 2 * 1.1331),
    ],
)
def test_means(pause: Pause, mean: float) -> None:
    chance = random.Random(7)
    assert sum(pause.draw(chance) for _ in range(20_000)) / 20_000 == pytest.approx(mean, rel=0.03)


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "nan", "inf", "uniform:3,1", "uniform:1", "gauss:1,2", "exponential:", "1,2"]
)
def test_nonsense_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(SettingInvalid, match="exponential:MEAN"):
        parse_pause(text)
