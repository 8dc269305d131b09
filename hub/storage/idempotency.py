"""Answers that are kept for requests that come again.

Owns their queries. Keys and fingerprints come in as keyed hashes, answers encrypted; this module could read
none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from hub.errors import AlreadyExists
from hub.storage.engine import Database
from hub.storage.tables import idempotency_records as records


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """What is known of an earlier request; ``answer`` is ``None`` where its end was not seen."""

    fingerprint: str = field(repr=False)
    answer: bytes | None = field(repr=False)


class IdempotencyRecords:
    """Answers by token and key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, token_id: str, key: str, *, now: float) -> KeptAnswer | None:
        """What was answered, if it was asked, and not too long ago."""
        query = select(records.c.fingerprint, records.c.answer).where(
            _is(token_id, key), records.c.expires_at > now
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else KeptAnswer(row.fingerprint, row.answer)

    async def add(
        self,
        token_id: str,
        key: str,
        *,
        organisation_id: str,
        fingerprint: str,
        answer: bytes | None,
        expires_at: float,
        now: float,
    ) -> None:
        """Keep an answer, or with ``None`` that a request is begun.

        Raises:
            AlreadyExists: another process has done so since.
        """
        try:
            async with self._database.note() as connection:
                await connection.execute(
                    delete(records).where(_is(token_id, key), records.c.expires_at <= now)
                )
                await connection.execute(
                    insert(records).values(
                        token_id=token_id,
                        key=key,
                        organisation_id=organisation_id,
                        fingerprint=fingerprint,
                        answer=answer,
                        expires_at=expires_at,
                    )
                )
        except IntegrityError:
            raise AlreadyExists("answer", key) from None

    async def finish(self, token_id: str, key: str, answer: bytes) -> None:
        """Keep the answer of a request that was begun."""
        async with self._database.note() as connection:
            await connection.execute(update(records).where(_is(token_id, key)).values(answer=answer))

    async def forget(self, token_id: str, key: str) -> None:
        """Forget a request that was begun and did nothing."""
        async with self._database.note() as connection:
            await connection.execute(delete(records).where(_is(token_id, key)))


def _is(token_id: str, key: str) -> ColumnElement[bool]:
    return (records.c.token_id == token_id) & (records.c.key == key)
