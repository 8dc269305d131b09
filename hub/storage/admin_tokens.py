"""Admin tokens: leave for programs to administer.

Owns their queries. Secrets come in as hashes only. Who may make one is :mod:`hub.permissions`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import insert, select, update

from hub.errors import NotFound
from hub.identifiers import new_id
from hub.permissions import check_token_grant
from hub.storage import codec
from hub.storage.authority import role_in
from hub.storage.engine import Database
from hub.storage.paging import page_of
from hub.storage.records import AdminToken, Role
from hub.storage.tables import admin_tokens


class AdminTokens:
    """Admin tokens. Nobody keeps a copy of one, so none of this raises the revision."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        organisation_id: str,
        *,
        name: str,
        prefix: str,
        token_hash: str,
        role: Role,
        expires_at: float,
        now: float,
        by: str | None = None,
    ) -> AdminToken:
        """Store a token that was minted; :mod:`hub.admin_tokens` mints, checks and calls this.

        ``by`` is the id of the account or the admin token that makes it, ``None`` for a command on the Hub's
        machine. What it may is judged as it is in this transaction.

        Raises:
            NotFound: there is no such organisation where ``by`` could see it.
            NotAllowed: ``by`` makes no token of this role.
            AdminTokenInvalid: the token ``by`` has ended.
        """
        token = AdminToken(
            id=new_id("atk"),
            organisation_id=organisation_id,
            name=name,
            prefix=prefix,
            role=role,
            created_at=now,
            expires_at=expires_at,
        )
        values = codec.values_of(token, admin_tokens) | {"hash": token_hash, "role": role.value}
        async with self._database.note() as connection:
            if by is not None:
                check_token_grant(await role_in(connection, by, organisation_id, now=now), role)
            await connection.execute(insert(admin_tokens).values(values))
            await self._database.tell(
                connection,
                "admin_token.created",
                token.id,
                of=organisation_id,
                role=role.value,
                expires_at=expires_at,
            )
        return token

    async def get(self, token_id: str) -> AdminToken | None:
        """The token with this id, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(admin_tokens).where(admin_tokens.c.id == token_id))
            row = rows.mappings().one_or_none()
        return codec.admin_token(row) if row is not None else None

    async def by_hash(self, token_hash: str) -> AdminToken | None:
        """The token whose secret has this hash, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(admin_tokens).where(admin_tokens.c.hash == token_hash))
            row = rows.mappings().one_or_none()
        return codec.admin_token(row) if row is not None else None

    async def list(self, organisation_id: str) -> list[AdminToken]:
        """The tokens of one organisation, the newest first."""
        query = (
            select(admin_tokens)
            .where(admin_tokens.c.organisation_id == organisation_id)
            .order_by(admin_tokens.c.created_at.desc(), admin_tokens.c.id)
        )
        async with self._database.read() as connection:
            return [codec.admin_token(row) for row in (await connection.execute(query)).mappings()]

    async def page(
        self, organisation_id: str | None, *, after: str | None, limit: int
    ) -> Sequence[AdminToken]:
        """A page of the tokens of one organisation, or of all; see `hub.storage.paging`."""
        query = page_of(admin_tokens, organisation_id, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.admin_token(row) for row in (await connection.execute(query)).mappings()]

    async def mark_used(self, token_id: str, *, now: float) -> None:
        """Note when a token was last used."""
        used = update(admin_tokens).where(admin_tokens.c.id == token_id).values(last_used_at=now)
        async with self._database.note() as connection:
            await connection.execute(used)

    async def revoke(self, token_id: str, *, now: float) -> None:
        """End a token. Revoking twice keeps the first time.

        Raises:
            NotFound: there is no such token.
        """
        columns = admin_tokens.c
        async with self._database.note() as connection:
            of = await connection.scalar(select(columns.organisation_id).where(columns.id == token_id))
            if of is None:
                raise NotFound("admin token", token_id)
            alive = (columns.id == token_id) & columns.revoked_at.is_(None)
            ended = await connection.execute(update(admin_tokens).where(alive).values(revoked_at=now))
            if ended.rowcount:
                await self._database.tell(connection, "admin_token.revoked", token_id, of=of)
