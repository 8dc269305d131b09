"""Sums of usage records by hour and by day, so that a page over a month need not read every record.

Owns how records are added up and which table answers which question. A table is written in the transaction
that stores its records, with just those that were new, so each counts once. Must not know the spool or pages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Select, Table, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import InvalidInput
from hub.storage.records import UsageRecord
from hub.storage.tables import usage_days, usage_hours, usage_node_days, usage_node_hours

HOUR_S, DAY_S = 3_600, 86_400
SUMS = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")


class Step(StrEnum):
    """The spans of time that usage is added up by."""

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


_COLUMNS = {
    By.KEY: "key_id",
    By.MODEL: "model",
    By.REGION: "region",
    By.OUTCOME: "outcome",
    By.NODE: "node_id",
}


@dataclass(frozen=True, slots=True)
class _Rollup:
    """A table, the length of its spans, and what a record is filed under in it."""

    table: Table
    step: Step
    groups: Callable[[UsageRecord], tuple[str, ...]]

    def key(self, record: UsageRecord) -> tuple[Any, ...]:
        start = int(record.created_at // self.step.width_s) * self.step.width_s
        return (record.organisation_id, start, *self.groups(record))


def _by_key(record: UsageRecord) -> tuple[str, ...]:
    return record.key_id, record.model, record.region or "", record.outcome


def _by_node(record: UsageRecord) -> tuple[str, ...]:
    return record.node_id, record.region or ""


_ROLLUPS = (
    _Rollup(usage_hours, Step.HOUR, _by_key),
    _Rollup(usage_days, Step.DAY, _by_key),
    _Rollup(usage_node_hours, Step.HOUR, _by_node),
    _Rollup(usage_node_days, Step.DAY, _by_node),
)
_TABLES = {
    (Step.HOUR, False): usage_hours,
    (Step.DAY, False): usage_days,
    (Step.HOUR, True): usage_node_hours,
    (Step.DAY, True): usage_node_days,
}


async def add(connection: AsyncConnection, records: Sequence[UsageRecord]) -> None:
    """Count records, none of which was counted before, within the caller's transaction."""
    insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    for rollup in _ROLLUPS:
        statement = insert(rollup.table)
        statement = statement.on_conflict_do_update(
            index_elements=[column.name for column in rollup.table.primary_key],
            set_={name: rollup.table.c[name] + statement.excluded[name] for name in SUMS},
        )
        rows = _rows(rollup, records)
        if rows:
            await connection.execute(statement, rows)


def _rows(rollup: _Rollup, records: Sequence[UsageRecord]) -> list[Mapping[str, Any]]:
    """Sums by key, in the key's order: two processes that write the same rows never wait for each other."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    for record in records:
        row = sums.setdefault(rollup.key(record), [0, 0, 0, 0])
        row[0] += 1
        row[1] += record.prompt_tokens
        row[2] += record.cached_tokens
        row[3] += record.completion_tokens
    names = [column.name for column in rollup.table.columns]
    return [dict(zip(names, (*key, *counts), strict=True)) for key, counts in sorted(sums.items())]


def query(
    organisation_id: str,
    *,
    since: float,
    until: float,
    step: Step | None,
    by: Sequence[By],
    key_id: str | None,
) -> Select[Any]:
    """The query behind `hub.storage.usage.Usage.sums`.

    Raises:
        InvalidInput: nodes cannot be told apart together with that.
    """
    is_by_node = By.NODE in by
    if is_by_node and (key_id is not None or not set(by) <= {By.NODE, By.REGION}):
        raise InvalidInput("group-by", "usage by node can be told apart by region too, and by nothing else")
    table = _TABLES[step or _coarsest(since, until), is_by_node]
    groups = [table.c[_COLUMNS[each]] for each in by]
    keys = [*([] if step is None else [table.c.start]), *groups]
    found = select(*keys, *(func.sum(table.c[name]).label(name) for name in SUMS)).where(
        table.c.organisation_id == organisation_id, table.c.start >= since, table.c.start < until
    )
    if key_id is not None:
        found = found.where(table.c.key_id == key_id)
    return found.group_by(*keys).order_by(*keys)


def _coarsest(since: float, until: float) -> Step:
    return Step.HOUR if since % DAY_S or until % DAY_S else Step.DAY
