"""Organisations, their accounts, and signed-in browsers.

Owns the queries about people. Must not know passwords in the clear or cookies; what a role may is
:mod:`hub.permissions`'s.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import AlreadyExists, NotFound
from hub.identifiers import new_id
from hub.permissions import check_grant
from hub.quotas import Allowance
from hub.storage import codec
from hub.storage.authority import role_in
from hub.storage.engine import Database
from hub.storage.paging import page_of
from hub.storage.records import Account, Organisation, PortalSession, Role
from hub.storage.tables import accounts, organisations, portal_sessions


class Organisations:
    """Who owns nodes and keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, name: str, *, now: float) -> Organisation:
        """Add an organisation.

        Raises:
            AlreadyExists: its name is taken.
        """
        organisation = Organisation(id=new_id("org"), name=name, created_at=now)
        try:
            async with self._database.change() as connection:
                await connection.execute(
                    insert(organisations).values(codec.values_of(organisation, organisations))
                )
                await self._database.tell(
                    connection, "organisation.created", organisation.id, of=organisation.id
                )
        except IntegrityError:
            raise AlreadyExists("organisation", name) from None
        return organisation

    async def get(self, organisation_id: str) -> Organisation | None:
        """The organisation with this id."""
        async with self._database.read() as connection:
            rows = await connection.execute(
                select(organisations).where(organisations.c.id == organisation_id)
            )
            row = rows.mappings().one_or_none()
        return codec.organisation(row) if row is not None else None

    async def by_name(self, name: str) -> Organisation | None:
        """The organisation with this name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(organisations).where(organisations.c.name == name))
            row = rows.mappings().one_or_none()
        return codec.organisation(row) if row is not None else None

    async def names(self, organisation_ids: Collection[str]) -> dict[str, str]:
        """What these organisations are called, by their ids."""
        query = select(organisations.c.id, organisations.c.name).where(
            organisations.c.id.in_(organisation_ids)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        return dict(tuple(row) for row in rows)

    async def rename(self, organisation_id: str, name: str) -> None:
        """Call an organisation something else.

        Raises:
            AlreadyExists: the name is taken.
            NotFound: there is no such organisation.
        """
        statement = update(organisations).where(organisations.c.id == organisation_id).values(name=name)
        try:
            async with self._database.change() as connection:
                if await connection.scalar(statement.returning(organisations.c.id)) is None:
                    raise NotFound("organisation", organisation_id)
                await self._database.tell(
                    connection, "organisation.renamed", organisation_id, of=organisation_id
                )
        except IntegrityError:
            raise AlreadyExists("organisation", name) from None

    async def set_limits(self, organisation_id: str, limits: Allowance) -> None:
        """Set the ceiling over all keys of an organisation.

        Raises:
            NotFound: there is no such organisation.
        """
        statement = (
            update(organisations)
            .where(organisations.c.id == organisation_id)
            .values(codec.allowance_values(limits))
            .returning(organisations.c.id)
        )
        async with self._database.change() as connection:
            if await connection.scalar(statement) is None:
                raise NotFound("organisation", organisation_id)
            told = codec.allowance_told(limits)
            await self._database.tell(
                connection, "organisation.limits_changed", organisation_id, of=organisation_id, **told
            )

    async def page(self, *, after: str | None, limit: int) -> Sequence[Organisation]:
        """A page of all organisations; see `hub.storage.paging`."""
        query = page_of(organisations, None, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.organisation(row) for row in (await connection.execute(query)).mappings()]

    async def list(self) -> list[Organisation]:
        """Every organisation, by name."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(organisations).order_by(organisations.c.name))
            return [codec.organisation(row) for row in rows.mappings()]


class Accounts:
    """The members of organisations. E-mail addresses are compared in lower case."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        organisation_id: str,
        *,
        email: str,
        password_hash: str,
        role: Role,
        now: float,
        by: str | None = None,
    ) -> Account:
        """Add an account.

        ``by`` is the id of the account or the admin token that makes it, ``None`` for a command on the Hub's
        machine. What it may is judged as it is in this transaction.

        Raises:
            AlreadyExists: the e-mail address has one.
            NotFound: there is no such organisation where ``by`` could see it.
            NotAllowed: ``by`` may not give this role.
            AdminTokenInvalid: the token ``by`` has ended.
        """
        account = Account(
            id=new_id("acct"),
            organisation_id=organisation_id,
            email=email.lower(),
            password_hash=password_hash,
            role=role,
            created_at=now,
        )
        values = codec.values_of(account, accounts)
        try:
            async with self._database.change() as connection:
                if by is not None:
                    check_grant(await role_in(connection, by, organisation_id, now=now), role)
                await connection.execute(insert(accounts).values(values))
                await self._database.tell(
                    connection, "account.created", account.id, of=organisation_id, role=role.value
                )
        except IntegrityError:
            if await self.by_email(email) is None:
                raise NotFound("organisation", organisation_id) from None
            raise AlreadyExists("account", email) from None
        return account

    async def get(self, account_id: str) -> Account | None:
        """The account with this id."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(accounts).where(accounts.c.id == account_id))
            row = rows.mappings().one_or_none()
        return codec.account(row) if row is not None else None

    async def by_email(self, email: str) -> Account | None:
        """The account with this e-mail address, in any case."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(accounts).where(accounts.c.email == email.lower()))
            row = rows.mappings().one_or_none()
        return codec.account(row) if row is not None else None

    async def list(self, organisation_id: str | None = None) -> list[Account]:
        """The accounts of one organisation, or all of them, by e-mail address."""
        query = select(accounts).order_by(accounts.c.email)
        if organisation_id is not None:
            query = query.where(accounts.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [codec.account(row) for row in rows.mappings()]

    async def page(self, organisation_id: str | None, *, after: str | None, limit: int) -> Sequence[Account]:
        """A page of the accounts of one organisation, or of all; see `hub.storage.paging`."""
        query = page_of(accounts, organisation_id, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.account(row) for row in (await connection.execute(query)).mappings()]

    async def change_password(
        self, account_id: str, password_hash: str, *, keep_session: str | None = None
    ) -> None:
        """Replace the password's hash and end every signed-in session of the account but the one to keep."""
        async with self._database.change() as connection:
            statement = (
                update(accounts).where(accounts.c.id == account_id).values(password_hash=password_hash)
            )
            of = await connection.scalar(statement.returning(accounts.c.organisation_id))
            await end_sessions(connection, account_id, but=keep_session)
            if of is not None:
                await self._database.tell(connection, "account.password_changed", account_id, of=of)

    async def renew_hash(self, account_id: str, *, old: str, new: str) -> None:
        """Replace a hash by a stronger one of the same password, unless the password changed meanwhile."""
        unchanged = (accounts.c.id == account_id) & (accounts.c.password_hash == old)
        async with self._database.note() as connection:
            await connection.execute(update(accounts).where(unchanged).values(password_hash=new))


class PortalSessions:
    """Signed-in browsers, found by the SHA-256 of their cookie."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        session_id: str,
        account_id: str,
        *,
        csrf_token: str,
        expires_at: float,
        now: float,
        address: str | None = None,
        browser: str | None = None,
        **told: str,
    ) -> PortalSession:
        """Add a session, and clear away those that are over; ``told`` is what the audit log says of it."""
        session = PortalSession(
            id=session_id,
            account_id=account_id,
            csrf_token=csrf_token,
            created_at=now,
            expires_at=expires_at,
            address=address,
            browser=browser,
        )
        values = codec.values_of(session, portal_sessions)
        async with self._database.note() as connection:
            await connection.execute(delete(portal_sessions).where(portal_sessions.c.expires_at <= now))
            await connection.execute(insert(portal_sessions).values(values))
            of = await organisation_of(connection, account_id)
            await self._database.tell(connection, "account.signed_in", account_id, of=of, **told)
        return session

    async def get(self, session_id: str, *, now: float) -> PortalSession | None:
        """The session with this id, unless it is over."""
        alive = (portal_sessions.c.id == session_id) & (portal_sessions.c.expires_at > now)
        async with self._database.read() as connection:
            row = (await connection.execute(select(portal_sessions).where(alive))).mappings().one_or_none()
        return codec.portal_session(row) if row is not None else None

    async def list(self, account_id: str, *, now: float) -> list[PortalSession]:
        """An account's sessions that are not over, the newest first."""
        alive = (portal_sessions.c.account_id == account_id) & (portal_sessions.c.expires_at > now)
        query = select(portal_sessions).where(alive).order_by(portal_sessions.c.created_at.desc())
        async with self._database.read() as connection:
            return [codec.portal_session(row) for row in (await connection.execute(query)).mappings()]

    async def end(self, account_id: str, session_id: str) -> bool:
        """End a session of this account, from another one; whether there was one."""
        mine = (portal_sessions.c.id == session_id) & (portal_sessions.c.account_id == account_id)
        async with self._database.note() as connection:
            ended = (await connection.execute(delete(portal_sessions).where(mine))).rowcount
            if ended:
                of = await organisation_of(connection, account_id)
                await self._database.tell(connection, "account.session_ended", account_id, of=of)
        return bool(ended)

    async def end_others(self, account_id: str, session_id: str) -> int:
        """End every session of an account but this one; how many there were."""
        async with self._database.note() as connection:
            ended = await end_sessions(connection, account_id, but=session_id)
            if ended:
                of = await organisation_of(connection, account_id)
                told = {"others": ended}
                await self._database.tell(
                    connection, "account.other_sessions_ended", account_id, of=of, **told
                )
        return ended

    async def delete(self, session_id: str) -> None:
        """End a session. One that is not there has ended already."""
        async with self._database.note() as connection:
            ended = delete(portal_sessions).where(portal_sessions.c.id == session_id)
            account_id = await connection.scalar(ended.returning(portal_sessions.c.account_id))
            if account_id is not None:
                of = await organisation_of(connection, account_id)
                await self._database.tell(connection, "account.signed_out", account_id, of=of)


async def end_sessions(connection: AsyncConnection, account_id: str, *, but: str | None = None) -> int:
    """End an account's sessions, but perhaps one; how many there were."""
    ended = delete(portal_sessions).where(portal_sessions.c.account_id == account_id)
    if but is not None:
        ended = ended.where(portal_sessions.c.id != but)
    return (await connection.execute(ended)).rowcount


async def organisation_of(connection: AsyncConnection, account_id: str) -> str | None:
    """Whose member an account is, for the events about it."""
    found = await connection.scalar(select(accounts.c.organisation_id).where(accounts.c.id == account_id))
    return None if found is None else str(found)
