"""What identity providers call the owners of accounts.

Owns their queries. An identity is an issuer and a subject, and leads to one account; an e-mail address never
does. Must not know tokens or rules.
"""

from __future__ import annotations

from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from hub.errors import AlreadyExists
from hub.identifiers import new_id
from hub.permissions import Role
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.people import organisation_of
from hub.storage.records import NO_PASSWORD, Account
from hub.storage.tables import accounts, identities


class Identities:
    """Which account an identity signs in to."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def account(self, issuer: str, subject: str) -> Account | None:
        """The account of an identity."""
        mine = (identities.c.issuer == issuer) & (identities.c.subject == subject)
        query = select(accounts).join(identities, identities.c.account_id == accounts.c.id).where(mine)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.account(row) if row is not None else None

    async def linked(self, account_id: str, issuer: str) -> bool:
        """Whether an account has an identity of this issuer."""
        mine = (identities.c.account_id == account_id) & (identities.c.issuer == issuer)
        async with self._database.read() as connection:
            return await connection.scalar(select(identities.c.subject).where(mine).limit(1)) is not None

    async def link(self, account_id: str, issuer: str, subject: str, *, now: float) -> None:
        """Let an identity sign in to an account that is there.

        Raises:
            AlreadyExists: the identity signs in to an account already.
        """
        values = {"account_id": account_id, "issuer": issuer, "subject": subject, "created_at": now}
        try:
            async with self._database.note() as connection:
                await connection.execute(insert(identities).values(values))
                of = await organisation_of(connection, account_id)
                await self._database.tell(
                    connection, "account.identity_linked", account_id, of=of, issuer=issuer
                )
        except IntegrityError:
            raise AlreadyExists("identity", subject) from None

    async def unlink(self, account_id: str, issuer: str) -> bool:
        """Let no identity of this issuer sign in to an account any more; whether there was one."""
        mine = (identities.c.account_id == account_id) & (identities.c.issuer == issuer)
        async with self._database.note() as connection:
            gone = (await connection.execute(delete(identities).where(mine))).rowcount
            if gone:
                of = await organisation_of(connection, account_id)
                await self._database.tell(
                    connection, "account.identity_unlinked", account_id, of=of, issuer=issuer
                )
        return bool(gone)

    async def provision(
        self, organisation_id: str, *, email: str, role: Role, issuer: str, subject: str, now: float
    ) -> Account:
        """Make an account without a password, for an identity.

        Raises:
            AlreadyExists: the e-mail address or the identity has an account.
        """
        account = Account(
            id=new_id("acct"),
            organisation_id=organisation_id,
            email=email,
            password_hash=NO_PASSWORD,
            role=role,
            created_at=now,
        )
        values = {"account_id": account.id, "issuer": issuer, "subject": subject, "created_at": now}
        try:
            async with self._database.change() as connection:
                await connection.execute(
                    insert(accounts).values(codec.values_of(account, accounts) | {"role": role.value})
                )
                await connection.execute(insert(identities).values(values))
                told = {"role": role.value, "issuer": issuer}
                await self._database.tell(
                    connection, "account.provisioned", account.id, of=organisation_id, **told
                )
        except IntegrityError:
            raise AlreadyExists("account", email) from None
        return account
