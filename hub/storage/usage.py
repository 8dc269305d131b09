"""Usage records: one row for each answered request, and their sums.

Owns their queries. A record is written any number of times and counted once. Must not know the spool.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.records import UsageRecord, UsageTotal
from hub.storage.tables import api_keys, usage_records

_DAY_S = 86_400


class Usage:
    """What was answered, for whom and where; never what was said."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, records: Sequence[UsageRecord]) -> None:
        """Store records, each once by its request id however often it is given; note when keys were used."""
        if not records:
            return
        insert = postgresql_insert if self._database.engine.dialect.name == "postgresql" else sqlite_insert
        statement = insert(usage_records).on_conflict_do_nothing(index_elements=["request_id"])
        async with self._database.note() as connection:
            await connection.execute(statement, [_values(record) for record in records])
            await _note_key_use(connection, records)

    async def get(self, request_id: str) -> UsageRecord | None:
        """The record of one request."""
        query = select(usage_records).where(usage_records.c.request_id == request_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.usage_record(row) if row is not None else None

    async def totals(self, organisation_id: str, *, since: float, until: float) -> list[UsageTotal]:
        """Sums for an organisation by day, model and key, newest day first.

        Args:
            organisation_id: whose keys.
            since: UTC seconds since the epoch, included.
            until: UTC seconds since the epoch, not included.
        """
        columns = usage_records.c
        groups = (columns.day, columns.model, columns.key_id)
        query = (
            select(
                *groups,
                func.count().label("requests"),
                func.sum(columns.prompt_tokens).label("prompt_tokens"),
                func.sum(columns.cached_tokens).label("cached_tokens"),
                func.sum(columns.completion_tokens).label("completion_tokens"),
            )
            .where(
                columns.organisation_id == organisation_id,
                columns.created_at >= since,
                columns.created_at < until,
            )
            .group_by(*groups)
            .order_by(columns.day.desc(), columns.model, columns.key_id)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [UsageTotal(**{**row, "day": _day_name(row["day"])}) for row in rows]

    async def list(self, organisation_id: str | None = None, *, limit: int = 100) -> list[UsageRecord]:
        """The latest records of one organisation, or of all, newest first."""
        query = select(usage_records).order_by(usage_records.c.created_at.desc()).limit(limit)
        if organisation_id is not None:
            query = query.where(usage_records.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            return [codec.usage_record(row) for row in (await connection.execute(query)).mappings()]


def _values(record: UsageRecord) -> Mapping[str, Any]:
    return asdict(record) | {"day": int(record.created_at // _DAY_S)}


def _day_name(day: int) -> str:
    return datetime.fromtimestamp(day * _DAY_S, tz=UTC).date().isoformat()


async def _note_key_use(connection: AsyncConnection, records: Sequence[UsageRecord]) -> None:
    latest: dict[str, float] = {}
    for record in records:
        latest[record.key_id] = max(record.created_at, latest.get(record.key_id, 0.0))
    last_used = api_keys.c.last_used_at
    for key_id, used_at in sorted(latest.items()):  # in one order, so that two Hubs never wait for each other
        earlier = or_(last_used.is_(None), last_used < used_at)
        await connection.execute(
            update(api_keys).where(api_keys.c.id == key_id, earlier).values(last_used_at=used_at)
        )
