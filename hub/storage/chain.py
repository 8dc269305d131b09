"""The writing of the audit log, inside the transaction of the act that it tells of.

Owns the head of the chain: whoever writes an event holds its row until the transaction ends, so that there is
one chain however many processes write (SQLite takes its one write lock at the beginning anyway). Personal
things in an event become pseudonyms here. Must not know what an action means, nor the clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.acting import Actor, Personal
from hub.audit import Event, canonical, event_hash
from hub.identifiers import new_id
from hub.storage.tables import audit_events, audit_head, pseudonyms

HEAD = 1
_MAX_PERSONAL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """Something that is done, before it has a place in the chain.

    Attributes:
        action: what, such as ``key.created``.
        actor: who.
        subject: to what: its id.
        organisation_id: whose event it is; the actor's where it is ``None``.
        details: what JSON can hold, and `Personal` values at its top.
        at: UTC seconds since the epoch.
    """

    action: str
    actor: Actor
    subject: str
    organisation_id: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    at: float


async def lock_head(connection: AsyncConnection) -> tuple[int, str]:
    """Sequence and hash of the last event; nobody else writes one until this transaction ends."""
    query = select(audit_head.c.sequence, audit_head.c.hash).where(audit_head.c.id == HEAD).with_for_update()
    row = (await connection.execute(query)).one()
    return int(row.sequence), str(row.hash)


async def append(connection: AsyncConnection, acts: Iterable[Act], *, batch: str | None = None) -> None:
    """Write events at the end of the chain, in this order."""
    sequence, previous = await lock_head(connection)
    events: list[Event] = []
    for act in acts:
        event = await _event(connection, act, sequence + 1, previous, batch)
        sequence, previous = event.sequence, event.hash
        events.append(event)
    if not events:
        return
    await connection.execute(insert(audit_events), [asdict(event) for event in events])
    head = update(audit_head).where(audit_head.c.id == HEAD)
    await connection.execute(head.values(sequence=sequence, hash=previous))


async def _event(
    connection: AsyncConnection, act: Act, sequence: int, previous: str, batch: str | None
) -> Event:
    details = dict(act.details) | act.actor.traits
    event = Event(
        sequence=sequence,
        time_ms=round(act.at * 1000),
        organisation_id=act.organisation_id or act.actor.organisation_id,
        actor=act.actor.id,
        action=act.action,
        subject=act.subject,
        details=canonical(await _impersonal(connection, details, act.at)),
        batch=batch,
        previous_hash=previous,
    )
    return replace(event, hash=event_hash(event))


async def _impersonal(connection: AsyncConnection, details: Mapping[str, Any], now: float) -> dict[str, Any]:
    return {
        name: await _pseudonym(connection, value, now) if isinstance(value, Personal) else value
        for name, value in details.items()
    }


async def _pseudonym(connection: AsyncConnection, personal: Personal, now: float) -> str:
    """What stands for it in the log: the same for the same value, drawn by chance, until it is erased."""
    value = personal.value[:_MAX_PERSONAL]
    found = (pseudonyms.c.kind == personal.kind) & (pseudonyms.c.value == value)
    used = update(pseudonyms).where(found).values(used_at=now).returning(pseudonyms.c.id)
    if (known := await connection.scalar(used)) is not None:
        return str(known)
    drawn = new_id("psd")
    await connection.execute(
        insert(pseudonyms).values(id=drawn, kind=personal.kind, value=value, used_at=now)
    )
    return drawn
