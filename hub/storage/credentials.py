"""API keys and join tokens: what admits an application or a machine.

Owns their queries. Secrets come in as hashes only; this module could not print one.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update

from hub.errors import NotFound
from hub.identifiers import new_id
from hub.policy import Fleet, TrustClass
from hub.receipts import policy_hash
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.records import ApiKey, JoinToken
from hub.storage.tables import api_keys, join_tokens


class ApiKeys:
    """API keys with their policies."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        organisation_id: str,
        *,
        name: str,
        prefix: str,
        key_hash: str,
        now: float,
        fleet: Fleet = Fleet.OWN,
        regions: frozenset[str] = frozenset(),
        minimum_trust: TrustClass = TrustClass.COMMUNITY,
        models: frozenset[str] | None = None,
        expires_at: float | None = None,
    ) -> ApiKey:
        """Store a key that was minted; :func:`hub.keys.issue_key` mints, checks and calls this."""
        key = ApiKey(
            id=new_id("key"),
            organisation_id=organisation_id,
            name=name,
            prefix=prefix,
            hash=key_hash,
            fleet=fleet.value,
            regions=regions,
            minimum_trust=minimum_trust.label,
            models=models,
            created_at=now,
            expires_at=expires_at,
        )
        values = codec.values_of(key, api_keys)
        values["regions"] = codec.write_set(regions)
        values["models"] = None if models is None else codec.write_set(models)
        async with self._database.change() as connection:
            await connection.execute(insert(api_keys).values(values))
            rules = {"fleet": fleet.value, "regions": sorted(regions), "minimum_trust": minimum_trust.label}
            await self._database.tell(
                connection,
                "key.created",
                key.id,
                of=organisation_id,
                **rules,
                models=None if models is None else sorted(models),
                policy_hash=policy_hash(key.policy, models),
                expires_at=expires_at,
            )
        return key

    async def get(self, key_id: str) -> ApiKey | None:
        """The key with this id, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(api_keys).where(api_keys.c.id == key_id))
            row = rows.mappings().one_or_none()
        return codec.api_key(row) if row is not None else None

    async def by_hash(self, key_hash: str) -> ApiKey | None:
        """The key whose secret has this hash, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(api_keys).where(api_keys.c.hash == key_hash))
            row = rows.mappings().one_or_none()
        return codec.api_key(row) if row is not None else None

    async def list(self, organisation_id: str | None = None) -> list[ApiKey]:
        """The keys of one organisation, or all of them, newest first."""
        query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        if organisation_id is not None:
            query = query.where(api_keys.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [codec.api_key(row) for row in rows.mappings()]

    async def revoke(self, key_id: str, *, now: float) -> None:
        """End a key. Revoking twice keeps the first time.

        Raises:
            NotFound: there is no such key.
        """
        async with self._database.change() as connection:
            of = await connection.scalar(select(api_keys.c.organisation_id).where(api_keys.c.id == key_id))
            if of is None:
                raise NotFound("key", key_id)
            alive = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
            ended = await connection.execute(update(api_keys).where(alive).values(revoked_at=now))
            if ended.rowcount:
                await self._database.tell(connection, "key.revoked", key_id, of=of)


class JoinTokens:
    """Leave for machines to enroll without a person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        organisation_id: str,
        *,
        name: str,
        token_hash: str,
        region: str | None,
        region_confirmed: bool,
        max_uses: int,
        expires_at: float,
        now: float,
    ) -> JoinToken:
        """Store a token that was minted."""
        token = JoinToken(
            id=new_id("jt"),
            organisation_id=organisation_id,
            name=name,
            region=region,
            region_confirmed=region_confirmed,
            max_uses=max_uses,
            uses=0,
            created_at=now,
            expires_at=expires_at,
        )
        values = codec.values_of(token, join_tokens)
        async with self._database.change() as connection:
            await connection.execute(insert(join_tokens).values(values | {"hash": token_hash}))
            await self._database.tell(
                connection,
                "join_token.created",
                token.id,
                of=organisation_id,
                region=region,
                region_confirmed=region_confirmed,
                max_uses=max_uses,
                expires_at=expires_at,
            )
        return token

    async def list(self, organisation_id: str | None = None) -> list[JoinToken]:
        """The tokens of one organisation, or all of them, newest first."""
        query = select(join_tokens).order_by(join_tokens.c.created_at.desc(), join_tokens.c.id)
        if organisation_id is not None:
            query = query.where(join_tokens.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [codec.join_token(row) for row in rows.mappings()]

    async def revoke(self, token_id: str, *, now: float) -> None:
        """End a token; the nodes it admitted stay."""
        alive = (join_tokens.c.id == token_id) & join_tokens.c.revoked_at.is_(None)
        async with self._database.change() as connection:
            ended = update(join_tokens).where(alive).values(revoked_at=now)
            of = await connection.scalar(ended.returning(join_tokens.c.organisation_id))
            if of is not None:
                await self._database.tell(connection, "join_token.revoked", token_id, of=of)
