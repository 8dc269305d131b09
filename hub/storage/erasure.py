"""What is deleted because its time is up, and what is erased because somebody asks for it.

Owns those statements. An account, a node or an organisation goes with everything that tells who a person is;
the audit log keeps the ids, which then stand for nobody, and usage keeps its counts until its own time is up.
Must not know settings or the clock.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Table, delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import NotAllowed, NotFound
from hub.storage import codec
from hub.storage.chain import lock_head
from hub.storage.engine import Database
from hub.storage.records import Account, Node, Organisation, Role
from hub.storage.tables import (
    accounts,
    api_keys,
    audit_events,
    device_enrollments,
    idempotency_records,
    invitations,
    metadata,
    nodes,
    organisations,
    portal_sessions,
    pseudonyms,
    usage_records,
)

_ENROLLMENT_KEPT_S = 3600.0  # so that late polls get a true answer
_CHUNK = 5000  # rows deleted in one transaction: others write in between


class Erasure:
    """Ends of things."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def expired(self, *, now: float) -> None:
        """Delete sessions, invitations, enrollments and answers kept for repeated requests that are over."""
        over = device_enrollments.c.expires_at < now - _ENROLLMENT_KEPT_S
        async with self._database.note() as connection:
            await connection.execute(delete(portal_sessions).where(portal_sessions.c.expires_at <= now))
            await connection.execute(delete(invitations).where(invitations.c.expires_at <= now))
            await connection.execute(delete(device_enrollments).where(over))
            await connection.execute(
                delete(idempotency_records).where(idempotency_records.c.expires_at <= now)
            )

    async def usage(self, *, before: float) -> int:
        """Delete usage records of before this time, UTC seconds since the epoch; how many there were."""
        async with self._database.read() as connection:
            owners = list(await connection.scalars(select(organisations.c.id)))
        return sum([await self._usage_of(owner, before) for owner in owners])

    async def _usage_of(self, organisation_id: str, before: float) -> int:
        """By the index there is; the look for old ones holds up no writer."""
        usage, total = usage_records.c, 0
        old = select(usage.request_id).where(
            usage.organisation_id == organisation_id, usage.created_at < before
        )
        while True:
            async with self._database.read() as connection:
                found = list(await connection.scalars(old.limit(_CHUNK)))
            if not found:
                return total
            async with self._database.note() as connection:
                await connection.execute(delete(usage_records).where(usage.request_id.in_(found)))
            total += len(found)

    async def account(self, account: Account) -> None:
        """Erase a person: the account, its sessions, and what stands behind the log's pseudonyms of it.

        Raises:
            NotFound: it is gone already.
            NotAllowed: it is the Hub's only operator.
        """
        async with self._database.change() as connection:
            if account.is_operator:
                await _require_other_operator(connection, account.id)
            found = await connection.execute(delete(accounts).where(accounts.c.id == account.id))
            if not found.rowcount:
                raise NotFound("account", account.id)
            await _forget_traits(connection, [account.id])
            await self._database.tell(connection, "account.erased", account.id, of=account.organisation_id)

    async def removed(self, email: str) -> bool:
        """Erase somebody who was removed before: what the log still knows; whether it knew anything."""
        named = (pseudonyms.c.kind == "email") & (pseudonyms.c.value == email.lower())
        async with self._database.note() as connection:
            found = await connection.scalar(select(pseudonyms.c.id).where(named))
            if found is None:
                return False
            told = audit_events.c.details.contains(str(found), autoescape=True)
            query = select(audit_events.c.subject, audit_events.c.organisation_id)
            query = query.where(audit_events.c.action == "account.removed", told)
            gone = [(str(subject), of) for subject, of in await connection.execute(query)]
            await _forget_traits(connection, [subject for subject, _ in gone])
            for subject, of in gone:
                await self._database.tell(connection, "account.erased", subject, of=of)
        return True

    async def node(self, node: Node) -> None:
        """Erase a machine: its name and all that it said of itself. One that still serves ends with it.

        Raises:
            NotFound: it is gone already.
        """
        async with self._database.change() as connection:
            await connection.execute(
                delete(device_enrollments).where(device_enrollments.c.node_id == node.id)
            )
            found = await connection.execute(delete(nodes).where(nodes.c.id == node.id))
            if not found.rowcount:
                raise NotFound("node", node.id)
            await _forget_traits(connection, [node.id])
            await self._database.tell(connection, "node.erased", node.id, of=node.organisation_id)

    async def organisation(self, organisation: Organisation) -> dict[str, int]:
        """Erase an organisation with its people, machines, keys, tokens and usage; rows by table.

        Raises:
            NotAllowed: an operator of the Hub belongs to it.
            NotFound: it is gone already.
        """
        mine = organisation.id
        async with self._database.change() as connection:
            await _hold_organisation(connection, mine)
            people = await _members(connection, accounts, mine)
            machines = await _members(connection, nodes, mine)
            await _require_no_operator(connection, mine)
            await connection.execute(
                delete(device_enrollments).where(device_enrollments.c.node_id.in_(machines))
            )
            gone = await _delete_all_of(connection, mine)
            await connection.execute(delete(organisations).where(organisations.c.id == mine))
            await _forget_traits(connection, [*people, *machines])
            await self._database.tell(connection, "organisation.erased", mine, of=mine, **gone)
        return gone

    async def purge(self) -> None:
        """Have what was erased leave the database's files too, as far as that can be asked for.

        SQLite overwrites what is deleted, and here empties its log; while others read, the next time does.
        PostgreSQL keeps dead rows until its own vacuum.
        """
        if self._database.engine.dialect.name == "sqlite":
            async with self._database.engine.connect() as connection:
                raw = await connection.get_raw_connection()
                assert raw.driver_connection is not None
                await raw.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def address(self, address: str) -> bool:
        """Forget which pseudonym stands for a network address; whether there was one."""
        named = (pseudonyms.c.kind == "address") & (pseudonyms.c.value == address)
        async with self._database.note() as connection:
            await lock_head(connection)
            erased = await connection.scalar(delete(pseudonyms).where(named).returning(pseudonyms.c.id))
            if erased is not None:
                await self._database.tell(connection, "address.erased", str(erased))
        return erased is not None


async def _hold_organisation(connection: AsyncConnection, organisation_id: str) -> None:
    """Let nobody add anything that is an organisation's until this transaction ends, nor note a key's use.

    Its keys are held in the order in which uses are noted.

    Raises:
        NotFound: it is gone already.
    """
    query = select(organisations.c.id).where(organisations.c.id == organisation_id).with_for_update()
    if await connection.scalar(query) is None:
        raise NotFound("organisation", organisation_id)
    keys = select(api_keys.c.id).where(api_keys.c.organisation_id == organisation_id)
    await connection.execute(keys.order_by(api_keys.c.id).with_for_update())


async def _members(connection: AsyncConnection, table: Table, organisation_id: str) -> list[str]:
    query = select(table.c.id).where(table.c.organisation_id == organisation_id)
    return [str(found) for found in await connection.scalars(query)]


async def _delete_all_of(connection: AsyncConnection, organisation_id: str) -> dict[str, int]:
    """Delete from every table whose rows belong to an organisation; the audit log's stay, as ids."""
    gone = {}
    for table in reversed(metadata.sorted_tables):
        if table is not audit_events and "organisation_id" in table.c:
            of = table.c.organisation_id == organisation_id
            gone[table.name] = (await connection.execute(delete(table).where(of))).rowcount
    return gone


async def _forget_traits(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Forget what stands behind every pseudonym in the events that these did, or that were done to them.

    Of the whole log: whoever writes meanwhile waits, with the lock that every writer takes first.
    """
    await lock_head(connection)
    theirs = audit_events.c.actor.in_(list(ids)) | audit_events.c.subject.in_(list(ids))
    query = select(audit_events.c.details).where(theirs)
    named = {
        value
        for details in await connection.scalars(query)
        for value in codec.read_map(details).values()
        if isinstance(value, str) and value.startswith("psd_")
    }
    for start in range(0, len(some := sorted(named)), _CHUNK):
        await connection.execute(delete(pseudonyms).where(pseudonyms.c.id.in_(some[start : start + _CHUNK])))


async def _require_other_operator(connection: AsyncConnection, account_id: str) -> None:
    """Of two operators that erase each other at once, the second finds itself alone."""
    operators = select(accounts.c.id).where(accounts.c.role == Role.OPERATOR.value).order_by(accounts.c.id)
    if not set(await connection.scalars(operators.with_for_update())) - {account_id}:
        raise NotAllowed(
            "this is the Hub's only operator: make another one first, with "
            "`porten-hub accounts create EMAIL --role operator`"
        )


async def _require_no_operator(connection: AsyncConnection, organisation_id: str) -> None:
    operators = (accounts.c.role == Role.OPERATOR.value) & (accounts.c.organisation_id == organisation_id)
    if await connection.scalar(select(func.count()).select_from(accounts).where(operators)):
        raise NotAllowed("an operator of the Hub belongs to this organisation: erase that account first")
