"""Usage as a table for people and programs: the columns, the names, and CSV.

Pure. Owns what a report of usage looks like wherever it is asked for. Must not know storage's tables, the
terminal or pages.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from hub.errors import InvalidInput
from hub.storage.records import UsageSum
from hub.storage.rollups import By, Step

DAY_S = 86_400
MAX_DAYS = 3_660
COUNTS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")

_NAMED = (By.KEY, By.NODE)  # told by id, and by the name that people gave
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Report:
    """A question about usage.

    Attributes:
        since: UTC seconds since the epoch, included.
        until: UTC seconds since the epoch, not included.
        step: one sum for each span; ``None`` for one over all of the time.
        by: what is told apart.
    """

    since: float
    until: float
    step: Step | None
    by: tuple[By, ...]


def read_report(first: str | None, last: str | None, step: str, by: str, *, today: date) -> Report:
    """Read a question about whole UTC days as it is typed.

    Args:
        first: the first day, ``2026-01-31``; 30 days with ``last`` among them where unset.
        last: the last day; today where unset.
        step: ``hour``, ``day`` or ``total``.
        by: names of `By`, comma-separated; empty for none.
        today: the present UTC day.

    Raises:
        InvalidInput: one of them has no meaning.
    """
    end = today if last is None else _read_day(last, "to")
    begin = end - timedelta(days=29) if first is None else _read_day(first, "from")
    if begin > end:
        raise InvalidInput("from", f"{begin} is after {end}")
    if (end - begin).days > MAX_DAYS:
        raise InvalidInput("from", f"at most {MAX_DAYS} days can be asked for at once")
    return Report(_midnight(begin), _midnight(end + timedelta(days=1)), _read_step(step), _read_by(by))


def columns(report: Report) -> tuple[str, ...]:
    """The headings of the rows of `rows`."""
    groups = [name for each in report.by for name in _headings(each)]
    return (*([] if report.step is None else ["start"]), *groups, *COUNTS)


def rows(report: Report, sums: Iterable[UsageSum], names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """One row for each sum.

    Args:
        report: what was asked.
        sums: the answer.
        names: what ids of keys and nodes stand for; those it lacks have no name.
    """
    return [tuple(_row(report, each, names)) for each in sums]


def csv_text(headings: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """CSV, with what a spreadsheet would take for a formula marked as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    writer.writerows([_as_text(cell) for cell in line] for line in lines)
    return text.getvalue()


def _row(report: Report, found: UsageSum, names: Mapping[str, str]) -> Iterable[str]:
    if found.start is not None:
        yield datetime.fromtimestamp(found.start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    for each, value in zip(report.by, found.group, strict=True):
        yield value
        if each in _NAMED:
            yield names.get(value, "")
    for count in COUNTS:
        yield str(getattr(found, count))


def _headings(each: By) -> tuple[str, ...]:
    return (f"{each.value}_id", f"{each.value}_name") if each in _NAMED else (each.value,)


def _as_text(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _read_day(text: str, field: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidInput(field, f"{text[:40]!r} is not a day such as 2026-01-31") from None


def _read_step(text: str) -> Step | None:
    if text == "total":
        return None
    if text not in set(Step):
        raise InvalidInput("by", f"{text[:40]!r} is not one of hour, day, total")
    return Step(text)


def _read_by(text: str) -> tuple[By, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in set(By):
            raise InvalidInput("group-by", f"{name[:40]!r} is not one of {', '.join(By)}")
    return tuple(dict.fromkeys(By(name) for name in names))
