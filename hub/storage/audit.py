"""The audit log as it is read, checked, sealed and pruned.

Owns its queries. What is written straight from an act goes through :meth:`Database.tell`. Must not know keys:
whoever seals brings the signature.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.audit import Checkpoint, Event
from hub.storage import codec
from hub.storage.chain import HEAD, Act, append, lock_head
from hub.storage.engine import Database
from hub.storage.tables import (
    accounts,
    admin_tokens,
    api_keys,
    audit_checkpoints,
    audit_events,
    audit_head,
    join_tokens,
    nodes,
    organisations,
    pseudonyms,
)

Seal = Callable[[int, str], tuple[Checkpoint, str]]
"""Signs that the event of this sequence has this hash; gives the checkpoint and its token."""

_PAGE = 1000
_NAMED = {
    accounts: "email",
    admin_tokens: "name",
    api_keys: "name",
    join_tokens: "name",
    nodes: "name",
    organisations: "name",
    pseudonyms: "value",
}
"""What people call the things that events name."""


class Audit:
    """Every act and every refusal, in one chain."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def tell(self, action: str, subject: str, *, of: str | None = None, **details: Any) -> None:
        """Write down an act that changes nothing in the database; see :meth:`Database.tell`."""
        async with self._database.note() as connection:
            await self._database.tell(connection, action, subject, of=of, **details)

    async def add(self, batch: str, acts: Sequence[Act]) -> None:
        """Write down what a spool kept, once however often the batch is given."""
        async with self._database.note() as connection:
            await lock_head(connection)
            known = select(audit_events.c.sequence).where(audit_events.c.batch == batch).limit(1)
            if await connection.scalar(known) is not None:
                return
            await append(connection, acts, batch=batch)

    async def page(
        self,
        organisation_id: str | None = None,
        *,
        before: int | None = None,
        actions: Collection[str] = (),
        limit: int = 50,
    ) -> list[Event]:
        """Events of one organisation, or all of them, newest first.

        Args:
            organisation_id: whose.
            before: only those with a lower sequence.
            actions: only these.
            limit: so many at most.
        """
        events = audit_events.c
        query = select(audit_events).order_by(events.sequence.desc()).limit(limit)
        if organisation_id is not None:
            query = query.where(events.organisation_id == organisation_id)
        if before is not None:
            query = query.where(events.sequence < before)
        if actions:
            query = query.where(events.action.in_(list(actions)))
        return await self._events(query)

    async def chain(self) -> AsyncIterator[Event]:
        """Every event in its order, read in pages, so that a long log needs no memory and holds no lock."""
        after = -1
        while events := await self._events(
            select(audit_events)
            .where(audit_events.c.sequence > after)
            .order_by(audit_events.c.sequence)
            .limit(_PAGE)
        ):
            for event in events:
                yield event
            after = events[-1].sequence

    async def head(self) -> tuple[int, str]:
        """Sequence and hash of the last event, as the head remembers them; 0 where there is none yet."""
        query = select(audit_head.c.sequence, audit_head.c.hash).where(audit_head.c.id == HEAD)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one()
        return int(row.sequence), str(row.hash)

    async def names(self, ids: Collection[str], organisation_id: str | None = None) -> dict[str, str]:
        """What stands behind ids and pseudonyms; what was erased is missing.

        Args:
            ids: any ids.
            organisation_id: whose things are named; everybody's where it is ``None``.
        """
        found: dict[str, str] = {}
        async with self._database.read() as connection:
            for table, column in _NAMED.items():
                query = select(table.c.id, table.c[column]).where(table.c.id.in_(list(ids)))
                owner = table.c.get("organisation_id", table.c.id if table is organisations else None)
                if organisation_id is not None and owner is not None:
                    query = query.where(owner == organisation_id)
                found |= {str(key): str(name) for key, name in await connection.execute(query)}
            return found | await _removed(connection, set(ids) - set(found), organisation_id)

    async def checkpoints(self) -> list[str]:
        """The tokens of every checkpoint, the oldest first."""
        query = select(audit_checkpoints.c.token).order_by(audit_checkpoints.c.sequence)
        async with self._database.read() as connection:
            return [str(token) for token in await connection.scalars(query)]

    async def last_checkpoint(self) -> tuple[int, int]:
        """Sequence and time (ms) of the newest checkpoint; zeros where there is none."""
        columns = audit_checkpoints.c
        query = select(columns.sequence, columns.time_ms).order_by(columns.sequence.desc()).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return (0, 0) if row is None else (int(row.sequence), int(row.time_ms))

    async def seal(self, seal: Seal) -> tuple[Checkpoint, str] | None:
        """Keep a checkpoint of the log as it is now; ``None`` where there is nothing in it."""
        async with self._database.note() as connection:
            sequence, digest = await lock_head(connection)
            if not sequence:
                return None
            checkpoint, token = seal(sequence, digest)
            await self._keep(connection, checkpoint, token)
        return checkpoint, token

    async def prune(self, before_ms: int, seal: Seal, *, upto: int, limit: int) -> tuple[int, str] | None:
        """Delete the oldest events, of before ``before_ms``, and keep a root in their place.

        Only what stands before the first event that is kept can go: the chain has no holes. The event that
        tells of it is the newest, in the same transaction.

        Args:
            before_ms: milliseconds since the epoch.
            seal: signs the root.
            upto: the last sequence that may go.
            limit: so many events at most.

        Returns:
            The sequence of the last event that went, and the root's token; ``None`` where there was none.
        """
        async with self._database.note() as connection:
            await lock_head(connection)
            last = await self._last_prunable(connection, before_ms, upto, limit)
            if last is None:
                return None
            events, checkpoints = audit_events.c, audit_checkpoints.c
            digest = await connection.scalar(select(events.hash).where(events.sequence == last))
            checkpoint, token = seal(last, str(digest))
            await connection.execute(delete(audit_checkpoints).where(checkpoints.sequence <= last))
            gone = await connection.execute(delete(audit_events).where(events.sequence <= last))
            await self._keep(connection, checkpoint, token)
            await self._database.tell(connection, "audit.pruned", str(last), events=gone.rowcount)
        return last, token

    async def forget_unused(self, before: float) -> None:
        """Forget what stands behind pseudonyms that no event since ``before`` (UTC seconds) names."""
        async with self._database.note() as connection:
            await connection.execute(delete(pseudonyms).where(pseudonyms.c.used_at < before))

    async def _last_prunable(
        self, connection: AsyncConnection, before_ms: int, upto: int, limit: int
    ) -> int | None:
        events = audit_events.c
        oldest = (
            select(events.sequence, events.time_ms)
            .where(events.sequence <= upto)
            .order_by(events.sequence)
            .limit(limit)
            .subquery()
        )
        kept = await connection.scalar(
            select(func.min(oldest.c.sequence)).where(oldest.c.time_ms >= before_ms)
        )
        candidates = select(func.max(oldest.c.sequence))
        if kept is not None:
            candidates = candidates.where(oldest.c.sequence < kept)
        last = await connection.scalar(candidates)
        return None if last is None else int(last)

    async def _keep(self, connection: AsyncConnection, checkpoint: Checkpoint, token: str) -> None:
        dialect = self._database.engine.dialect.name
        statement = (postgresql_insert if dialect == "postgresql" else sqlite_insert)(audit_checkpoints)
        await connection.execute(
            statement.on_conflict_do_nothing(index_elements=["sequence", "root"]).values(
                sequence=checkpoint.sequence, root=checkpoint.root, time_ms=checkpoint.time_ms, token=token
            )
        )

    async def _events(self, query: Select[Any]) -> list[Event]:
        async with self._database.read() as connection:
            return [Event(**row) for row in (await connection.execute(query)).mappings()]


async def _removed(
    connection: AsyncConnection, ids: Collection[str], organisation_id: str | None
) -> dict[str, str]:
    """Who removed accounts belonged to, as the events that tell of it still know."""
    events, missing = audit_events.c, [each for each in ids if each.startswith("acct_")]
    if not missing:
        return {}
    query = select(events.subject, events.details)
    query = query.where(events.action == "account.removed", events.subject.in_(missing))
    if organisation_id is not None:
        query = query.where(events.organisation_id == organisation_id)
    stands_for = {
        str(codec.read_map(details).get("email")): str(subject)
        for subject, details in await connection.execute(query)
    }
    known = select(pseudonyms.c.id, pseudonyms.c.value).where(pseudonyms.c.id.in_(list(stands_for)))
    return {stands_for[str(key)]: str(value) for key, value in await connection.execute(known)}
