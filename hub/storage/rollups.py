"""Sums of usage records by hour, day and week, so that a page over a month need not read every record.

Owns how records are added up and which sums answer which question. They are written in the transaction that
stores their records, with just those that were new, so each counts once. Must not know the spool or pages.

A sum is of one *facet*: by key and outcome, by key and model, by key and region, or by node. All of them
crossed with each other would be nearly as many rows as there are records; what asks for more than one facet
reads the records themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, Select, func, literal, select, union_all
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from hub.storage.records import UsageRecord
from hub.storage.tables import usage_days, usage_hours, usage_records, usage_weeks

HOUR_S, DAY_S, WEEK_S = 3_600, 86_400, 604_800
SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")


class Step(StrEnum):
    """The spans of time that usage can be shown by."""

    HOUR = "hour"
    DAY = "day"

    @property
    def width_s(self) -> int:
        """Its length in seconds."""
        return HOUR_S if self is Step.HOUR else DAY_S


class By(StrEnum):
    """What usage can be told apart by."""

    KEY = "key"
    MODEL = "model"
    REGION = "region"
    OUTCOME = "outcome"
    NODE = "node"


_VALUES: Mapping[By, Callable[[UsageRecord], tuple[str, str]]] = {
    By.OUTCOME: lambda record: (record.key_id, record.outcome),
    By.MODEL: lambda record: (record.key_id, record.model),
    By.REGION: lambda record: (record.key_id, record.region or ""),
    By.NODE: lambda record: ("", record.node_id),  # with its key there would be as many sums as records
}
"""What a record is filed under in each facet: key and value."""
_TABLES = {WEEK_S: usage_weeks, DAY_S: usage_days, HOUR_S: usage_hours}
_RECORDS = usage_records.c
_COLUMNS: Mapping[By, ColumnElement[str]] = {
    By.KEY: _RECORDS.key_id,
    By.MODEL: _RECORDS.model,
    By.REGION: func.coalesce(_RECORDS.region, ""),
    By.OUTCOME: _RECORDS.outcome,
    By.NODE: _RECORDS.node_id,
}


class _Whole(FunctionElement[int]):
    """The whole number at or below one that is not negative."""

    type = BigInteger()
    inherit_cache = True


@compiles(_Whole)
def _cut_off(element: _Whole, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **options)} AS BIGINT)"


@compiles(_Whole, "postgresql")
def _round_down(element: _Whole, compiler: SQLCompiler, **options: Any) -> str:
    return f"CAST(FLOOR({compiler.process(element.clauses, **options)}) AS BIGINT)"


# --- writing -----------------------------------------------------------------------------------------------


Key = tuple[str, str, int, str, str]
"""Organisation, facet, start, key and value: a row's."""


async def add(connection: AsyncConnection, records: Sequence[UsageRecord]) -> None:
    """Count records, none of which was counted before, within the caller's transaction."""
    if not records:
        return
    insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    hours = _hours(records)
    for width_s, table in _TABLES.items():
        statement = insert(table)
        statement = statement.on_conflict_do_update(
            index_elements=[column.name for column in table.primary_key],
            set_={name: table.c[name] + statement.excluded[name] for name in SUMS},
        )
        await connection.execute(statement, _rows(hours, width_s))


def _hours(records: Sequence[UsageRecord]) -> dict[Key, list[int]]:
    sums: dict[Key, list[int]] = {}
    for record in records:
        start = int(record.created_at // HOUR_S) * HOUR_S
        counts = (1, record.prompt_tokens, record.cached_tokens, record.completion_tokens)
        for facet, value_of in _VALUES.items():
            _add(sums, (record.organisation_id, facet.value, start, *value_of(record)), counts)
    return sums


def _rows(hours: Mapping[Key, Sequence[int]], width_s: int) -> list[Mapping[str, Any]]:
    """Rows in their key's order: two processes that write the same ones never wait for each other."""
    sums: dict[Key, list[int]] = {}
    for (organisation_id, facet, start, key_id, value), counts in hours.items():
        _add(sums, (organisation_id, facet, start // width_s * width_s, key_id, value), counts)
    names = [column.name for column in usage_hours.columns]
    return [dict(zip(names, (*key, *counts), strict=True)) for key, counts in sorted(sums.items())]


def _add(sums: dict[Key, list[int]], key: Key, counts: Sequence[int]) -> None:
    row = sums.setdefault(key, [0, 0, 0, 0])
    for place, count in enumerate(counts):
        row[place] += count


# --- reading -----------------------------------------------------------------------------------------------


def query(
    organisation_id: str,
    *,
    since: float,
    until: float,
    step: Step | None,
    by: Sequence[By],
    key_id: str | None,
    most: int | None,
) -> Select[Any]:
    """The query behind `hub.storage.usage.Usage.sums`: start (where there is a step), groups, counts."""
    facet = _facet(by, key_id)
    unit = HOUR_S if step is None else step.width_s
    first, last = _up(since, unit), _up(until, unit)
    if facet is None:
        source = _records(organisation_id, first, last, unit, by)
    else:
        spans = list(_cover(first, last, tuple(_TABLES) if step is None else (unit,)))
        source = _facets(organisation_id, facet, spans, by)
    keys = [*([] if step is None else [source.c.start]), *(source.c[each.value] for each in by)]
    counts = [func.sum(source.c[name]) for name in SUMS]
    found = select(*keys, *counts)
    if key_id is not None:
        found = found.where(source.c.key == key_id)
    order = keys if most is None or step is not None else [(counts[1] + counts[3]).desc(), *keys]
    return found.group_by(*keys).order_by(*order).limit(most)


def _facet(by: Sequence[By], key_id: str | None) -> By | None:
    """The facet whose sums tell this, ``None`` where only the records do."""
    wanted = set(by) - {By.KEY}
    if len(wanted) > 1 or (By.NODE in wanted and (By.KEY in by or key_id is not None)):
        return None
    return wanted.pop() if wanted else By.OUTCOME


def _cover(first: int, last: int, widths: tuple[int, ...]) -> Iterator[tuple[int, int, int]]:
    """The spans that make up a time, as width, first and last: wide ones within, narrow ones at its edges."""
    if first >= last or not widths:
        return
    width, *narrower = widths
    low, high = _up(first, width), last // width * width
    if low < high:
        yield from _cover(first, low, tuple(narrower))
        yield width, low, high
        yield from _cover(high, last, tuple(narrower))
    else:
        yield from _cover(first, last, tuple(narrower))


def _up(moment: float, width: int) -> int:
    return -int(-moment // width) * width


def _facets(
    organisation_id: str, facet: By, spans: Sequence[tuple[int, int, int]], by: Sequence[By]
) -> FromClause:
    parts = []
    for width, low, high in spans or [(HOUR_S, 0, 0)]:
        columns = _TABLES[width].c
        names = [columns.start, columns.key_id.label("key")]
        names += [columns.value.label(facet.value)] if facet in by else []
        parts.append(
            select(*names, *(columns[name] for name in SUMS)).where(
                columns.organisation_id == organisation_id,
                columns.facet == facet.value,
                columns.start >= low,
                columns.start < high,
            )
        )
    return union_all(*parts).subquery()


def _records(organisation_id: str, first: int, last: int, width: int, by: Sequence[By]) -> FromClause:
    groups = [_COLUMNS[each].label(each.value) for each in dict.fromkeys((By.KEY, *by))]
    start = _Whole(_RECORDS.created_at / width) * width
    counts = [literal(1).label("requests"), *(_RECORDS[name] for name in SUMS[1:])]
    return (
        select(start.label("start"), *groups, *counts)
        .where(
            _RECORDS.organisation_id == organisation_id,
            _RECORDS.created_at >= first,
            _RECORDS.created_at < last,
        )
        .subquery()
    )
