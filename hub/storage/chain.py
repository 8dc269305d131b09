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
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
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
    acts = list(acts)
    stands_for = await _pseudonyms(connection, acts)
    events: list[Event] = []
    for act in acts:
        event = _event(act, stands_for, sequence + 1, previous, batch)
        sequence, previous = event.sequence, event.hash
        events.append(event)
    if not events:
        return
    await connection.execute(insert(audit_events), [asdict(event) for event in events])
    head = update(audit_head).where(audit_head.c.id == HEAD)
    await connection.execute(head.values(sequence=sequence, hash=previous))


def _event(
    act: Act, stands_for: Mapping[Personal, str], sequence: int, previous: str, batch: str | None
) -> Event:
    details = {
        name: stands_for[value] if isinstance(value, Personal) else value
        for name, value in _details(act).items()
    }
    event = Event(
        sequence=sequence,
        time_ms=round(act.at * 1000),
        organisation_id=act.organisation_id or act.actor.organisation_id,
        actor=act.actor.id,
        action=act.action,
        subject=act.subject,
        details=canonical(details),
        batch=batch,
        previous_hash=previous,
    )
    return replace(event, hash=event_hash(event))


def _details(act: Act) -> dict[str, Any]:
    return dict(act.details) | act.actor.traits


async def _pseudonyms(connection: AsyncConnection, acts: Iterable[Act]) -> dict[Personal, str]:
    """What stands for each personal thing: the same for the same value, drawn by chance, until it is erased.

    All in one statement: a batch may name as many addresses as a flood comes from, and others wait for it.
    """
    used: dict[tuple[str, str], float] = {}
    named: dict[Personal, tuple[str, str]] = {}
    for act in acts:
        for value in _details(act).values():
            if isinstance(value, Personal):
                named[value] = (value.kind, value.value[:_MAX_PERSONAL])
                used[named[value]] = act.at
    if not used:
        return {}
    put = (postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert)(pseudonyms)
    statement = put.on_conflict_do_update(
        index_elements=["kind", "value"], set_={"used_at": put.excluded.used_at}
    ).returning(pseudonyms.c.kind, pseudonyms.c.value, pseudonyms.c.id)
    rows = [
        {"id": new_id("psd"), "kind": kind, "value": value, "used_at": at}
        for (kind, value), at in used.items()
    ]
    known = {(kind, value): str(found) for kind, value, found in await connection.execute(statement, rows)}
    return {personal: known[key] for personal, key in named.items()}
