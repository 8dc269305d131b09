"""The owner's hours: what is written is what is kept, every minute of the week."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.hours import DAYS, Hours

MONDAY = datetime(2026, 1, 5)  # noqa: DTZ001 - hours are local, whatever the zone


def at(text: str) -> datetime:
    day, clock = text.split()
    hour, minute = map(int, clock.split(":"))
    return MONDAY + timedelta(days=DAYS.index(day), hours=hour, minutes=minute)


@pytest.mark.parametrize(
    ("written", "inside", "outside"),
    [
        ("Mon-Fri 18:00-08:00, Sat-Sun", ["Mon 18:00", "Tue 07:59", "Sat 07:59", "Sun 23:59"], ["Mon 08:00"]),
        ("Mon-Fri 18:00-08:00", ["Sat 07:59", "Fri 23:00"], ["Sat 08:00", "Mon 07:59", "Sun 12:00"]),
        ("22:00-06:00", ["Mon 22:00", "Wed 05:59", "Mon 00:00"], ["Wed 06:00", "Sun 21:59"]),
        ("Sun 23:00-01:00", ["Sun 23:30", "Mon 00:59"], ["Mon 01:00", "Sat 23:30"]),
        ("fri-MON", ["Fri 00:00", "Mon 23:59", "Sun 12:00"], ["Tue 00:00", "Thu 23:59"]),
        ("Wed", ["Wed 00:00", "Wed 23:59"], ["Tue 23:59", "Thu 00:00"]),
        ("Mon 20:00-24:00", ["Mon 23:59"], ["Tue 00:00", "Mon 19:59"]),
    ],
)
def test_moments_lie_inside_and_outside(written: str, inside: list[str], outside: list[str]) -> None:
    hours = Hours.parse(written)
    assert [moment for moment in inside if not hours.contains(at(moment))] == []
    assert [moment for moment in outside if hours.contains(at(moment))] == []


@pytest.mark.parametrize(
    "written",
    [
        "",
        ",",
        "Mon,",
        "Mon-Fri,,Sat",
        "Someday",
        "Mon-Xyz",
        "25:00-26:00",
        "08:00",
        "08:60-09:00",
        "08:00-08:00",
        "24:00-08:00",
        "Mon 8-9",
        "Mon 08:00-09:00 Tue",
    ],
)
def test_what_cannot_be_meant_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="no "):
        Hours.parse(written)


@given(
    first=st.sampled_from(DAYS),
    last=st.sampled_from(DAYS),
    begin=st.integers(0, 1439),
    end=st.integers(1, 1440),
    minute=st.integers(0, 7 * 1440 - 1),
)
def test_a_span_is_each_of_its_days_from_begin_to_end(
    first: str, last: str, begin: int, end: int, minute: int
) -> None:
    if begin == end:
        return
    hours = Hours.parse(f"{first}-{last} {clock(begin)}-{clock(end)}")
    days = {(DAYS.index(first) + n) % 7 for n in range((DAYS.index(last) - DAYS.index(first)) % 7 + 1)}
    day, rest = divmod(minute, 1440)
    if begin < end:
        expected = day in days and begin <= rest < end
    else:
        expected = (day in days and rest >= begin) or ((day - 1) % 7 in days and rest < end)
    assert hours.contains(MONDAY + timedelta(minutes=minute)) == expected


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


@pytest.mark.parametrize(
    ("now", "begins"), [("Mon 12:00", "Mon 18:00"), ("Fri 09:00", "Fri 18:00"), ("Wed 17:59", "Wed 18:00")]
)
def test_the_next_begin_is_named(now: str, begins: str) -> None:
    assert Hours.parse("Mon-Fri 18:00-08:00, Sat-Sun").next_begin(at(now)) == begins
    assert Hours.parse("Wed").next_begin(at("Wed 00:00")) == "Wed 00:00"
