"""Usage records: one row for each request that reached a node, and their sums.

Owns their queries. A record is written any number of times and counted once, in its row and in the sums of
`hub.storage.rollups`. Must not know the spool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.storage import codec, rollups
from hub.storage.engine import Database
from hub.storage.records import UsageRecord, UsageSum
from hub.storage.rollups import By, Step
from hub.storage.tables import organisations, usage_days, usage_records


class Usage:
    """What was answered, for whom and where; never what was said."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, records: Sequence[UsageRecord]) -> None:
        """Store records, each once by its request id however often it is given; count those that are new."""
        if not records:
            return
        async with self._database.note() as connection:
            new = await _insert(connection, records)
            await rollups.add(connection, new)

    async def get(self, request_id: str) -> UsageRecord | None:
        """The record of one request."""
        query = select(usage_records).where(usage_records.c.request_id == request_id)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.usage_record(row) if row is not None else None

    async def sums(
        self,
        organisation_id: str,
        *,
        since: float,
        until: float,
        step: Step | None = None,
        by: Sequence[By] = (),
        key_id: str | None = None,
        most: int | None = None,
    ) -> list[UsageSum]:
        """Sums for an organisation, by time and then by group.

        Quick where one thing is told apart, or keys and one thing more, or nodes alone; for all else the
        records themselves are read.

        Args:
            organisation_id: whose keys.
            since: UTC seconds since the epoch, included; whole steps are counted.
            until: UTC seconds since the epoch, not included.
            step: one sum for each span; ``None`` for one over all of the time.
            by: one sum for each combination of these.
            key_id: only of this key.
            most: no more than so many sums; without a step those with most tokens, in that order.
        """
        query = rollups.query(
            organisation_id, since=since, until=until, step=step, by=by, key_id=key_id, most=most
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        first = 0 if step is None else 1
        return [
            UsageSum(row[0] if first else None, tuple(row[first:-4]), *map(int, row[-4:]))
            for row in rows
            if row[-4]  # of no rows at all, the one sum is NULL
        ]

    async def has_any(self, organisation_id: str) -> bool:
        """Whether a request of this organisation ever reached a node."""
        query = select(usage_days.c.start).where(usage_days.c.organisation_id == organisation_id).limit(1)
        async with self._database.read() as connection:
            return await connection.scalar(query) is not None

    async def tokens_by_holder(self, *, since: float, until: float) -> Mapping[str, int]:
        """Prompt and completion tokens of every key and organisation, by their ids.

        Args:
            since: UTC seconds since the epoch at which a UTC day begins, included.
            until: the same, not included.
        """
        columns, owner = usage_days.c, organisations.c.id
        tokens = func.sum(columns.prompt_tokens + columns.completion_tokens)
        query = (
            select(owner, columns.key_id, tokens)
            .join_from(organisations, usage_days, columns.organisation_id == owner)
            .where(columns.facet == By.OUTCOME.value, columns.start >= since, columns.start < until)
            .group_by(owner, columns.key_id)
        )
        found: Counter[str] = Counter()
        async with self._database.read() as connection:
            for organisation_id, key_id, count in await connection.execute(query):
                found[organisation_id] += int(count)
                found[key_id] += int(count)
        return found

    async def list(self, organisation_id: str | None = None, *, limit: int = 100) -> list[UsageRecord]:
        """The latest records of one organisation, or of all, newest first."""
        query = select(usage_records).order_by(usage_records.c.created_at.desc()).limit(limit)
        if organisation_id is not None:
            query = query.where(usage_records.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            return [codec.usage_record(row) for row in (await connection.execute(query)).mappings()]


async def _insert(connection: AsyncConnection, records: Sequence[UsageRecord]) -> list[UsageRecord]:
    """Insert what is not there yet; returns that. RETURNING gives just the rows that went in."""
    insert = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    statement = (
        insert(usage_records)
        .on_conflict_do_nothing(index_elements=["request_id"])
        .returning(usage_records.c.request_id)
    )
    by_id = {record.request_id: record for record in records}
    inserted = await connection.scalars(statement, [asdict(record) for record in by_id.values()])
    return [by_id[request_id] for request_id in inserted]
