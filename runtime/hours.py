"""The hours of a week in which the node may work, as the owner writes them. Pure; the clock is an argument.

Written as `Mon-Fri 18:00-08:00, Sat-Sun`: days, hours or both, one span after another. Hours that end before
they begin run into the next day. Must not know what happens outside them.
"""

import re
from dataclasses import dataclass
from datetime import datetime

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY = 24 * 60
_WEEK = 7 * _DAY
_SPAN = re.compile(
    r"(?:(?P<first>[A-Za-z]{3})(?:-(?P<last>[A-Za-z]{3}))?)?"
    r"(?:\s*(?P<begin>\d{1,2}:\d{2})-(?P<end>\d{1,2}:\d{2}))?"
)


@dataclass(frozen=True, slots=True)
class Hours:
    """Spans of the week, each as its first minute after Monday 00:00 and its length in minutes."""

    spans: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> "Hours":
        """Read what the owner wrote.

        Raises:
            ValueError: it cannot be read; the message names the part.
        """
        spans = [span for part in text.split(",") for span in _read(part.strip())]
        return cls(tuple(sorted(set(spans))))

    def contains(self, moment: datetime) -> bool:
        """Whether the moment, in the owner's local time, lies in them."""
        minute = _minute_of_week(moment)
        return any((minute - begin) % _WEEK < length for begin, length in self.spans)

    def next_begin(self, moment: datetime) -> str:
        """When the next span begins, for people: `Sat 18:00`."""
        minute = _minute_of_week(moment)
        waited = min((begin - minute - 1) % _WEEK + 1 for begin, _ in self.spans)
        day, rest = divmod((minute + waited) % _WEEK, _DAY)
        return f"{DAYS[day]} {rest // 60:02}:{rest % 60:02}"


def _minute_of_week(moment: datetime) -> int:
    return moment.weekday() * _DAY + moment.hour * 60 + moment.minute


def _read(part: str) -> list[tuple[int, int]]:
    found = _SPAN.fullmatch(part)
    if not part or found is None:
        raise ValueError(f"{part!r} is no span such as `Mon-Fri 18:00-08:00`, `Sat-Sun` or `22:00-06:00`")
    begin = 0 if found["begin"] is None else _minute(found["begin"])
    end = _DAY if found["end"] is None else _minute(found["end"])
    if begin in (end, _DAY):
        raise ValueError(f"{part!r} says no length: a whole day is its name alone")
    length = end - begin if end > begin else end - begin + _DAY
    return [(day * _DAY + begin, length) for day in _days(found["first"], found["last"])]


def _days(first: str | None, last: str | None) -> list[int]:
    if first is None:
        return list(range(7))
    begin = _day(first)
    count = (_day(last) - begin) % 7 + 1 if last is not None else 1
    return [(begin + offset) % 7 for offset in range(count)]


def _day(name: str) -> int:
    if name.capitalize() not in DAYS:
        raise ValueError(f"{name!r} is no day: there is {', '.join(DAYS)}")
    return DAYS.index(name.capitalize())


def _minute(text: str) -> int:
    hours, minutes = (int(number) for number in text.split(":"))
    if hours * 60 + minutes > _DAY or minutes > 59:
        raise ValueError(f"{text!r} is no time of day")
    return hours * 60 + minutes
