"""API keys and join tokens: what admits an application or a machine.

Owns their queries. Secrets come in as hashes only; this module could not print one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    Column,
    ColumnElement,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import NotFound
from hub.identifiers import new_id
from hub.policy import Fleet, TrustClass
from hub.quotas import UNLIMITED, Allowance
from hub.receipts import policy_hash
from hub.storage import codec
from hub.storage.engine import Database
from hub.storage.paging import page_of
from hub.storage.records import ApiKey, JoinToken
from hub.storage.tables import api_keys, join_tokens, organisations

_CHUNK = 1000  # secrets in one question: databases bound what a statement may hold
_CEILING = [organisations.c[name].label(f"{codec.CEILING}{name}") for name in codec.LIMITS]


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
        limits: Allowance = UNLIMITED,
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
            limits=limits,
        )
        values = codec.values_of(key, api_keys) | _rules(regions, models, limits)
        async with self._database.change() as connection:
            await connection.execute(insert(api_keys).values(values))
            await self._database.tell(connection, "key.created", key.id, of=organisation_id, **_told(key))
        return key

    async def get(self, key_id: str) -> ApiKey | None:
        """The key with this id, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(api_keys).where(api_keys.c.id == key_id))
            row = rows.mappings().one_or_none()
        return codec.api_key(row) if row is not None else None

    async def by_hash(self, key_hash: str) -> ApiKey | None:
        """The key that a secret of this hash opens or opened, whatever its state, with its ceiling."""
        query = (
            select(api_keys, *_CEILING)
            .join(organisations, organisations.c.id == api_keys.c.organisation_id)
            .where(or_(api_keys.c.hash == key_hash, api_keys.c.previous_hash == key_hash))
        )
        async with self._database.read() as connection:
            row = (await connection.execute(query)).mappings().one_or_none()
        return codec.api_key(row) if row is not None else None

    async def list(self, organisation_id: str | None = None) -> list[ApiKey]:
        """The keys of one organisation, or all of them, newest first."""
        query = select(api_keys).order_by(api_keys.c.created_at.desc(), api_keys.c.id)
        if organisation_id is not None:
            query = query.where(api_keys.c.organisation_id == organisation_id)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [codec.api_key(row) for row in rows.mappings()]

    async def counts(self, now: float) -> dict[str, int]:
        """How many keys of each organisation are active at ``now``."""
        lasting = api_keys.c.expires_at.is_(None) | (api_keys.c.expires_at > now)
        query = select(api_keys.c.organisation_id, func.count()).where(
            api_keys.c.revoked_at.is_(None), lasting
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query.group_by(api_keys.c.organisation_id))).all()
        return dict(tuple(row) for row in rows)

    async def page(self, organisation_id: str | None, *, after: str | None, limit: int) -> Sequence[ApiKey]:
        """A page of the keys of one organisation, or of all; see `hub.storage.paging`."""
        query = page_of(api_keys, organisation_id, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.api_key(row) for row in (await connection.execute(query)).mappings()]

    async def replace_rules(
        self,
        seen: ApiKey,
        *,
        name: str,
        fleet: Fleet,
        regions: frozenset[str],
        minimum_trust: TrustClass,
        models: frozenset[str] | None,
        expires_at: float | None,
        limits: Allowance,
    ) -> ApiKey | None:
        """Replace what a key allows, if it still allows what it was seen to.

        What stays as it is was taken from what was seen, so a change by somebody else in between must win: a
        name that is changed must not widen what was narrowed meanwhile. :func:`hub.keys.change_key` checks
        and calls this.

        Returns:
            The key as it is now; ``None`` where it is no longer as seen, or was revoked.
        """
        values = {
            "name": name,
            "fleet": fleet.value,
            "minimum_trust": minimum_trust.label,
            "expires_at": expires_at,
            **_rules(regions, models, limits),
        }
        async with self._database.change() as connection:
            if not await _is_still(connection, seen):
                return None
            key = await _replace(connection, seen.id, values)
            if key is not None:
                of = key.organisation_id
                await self._database.tell(connection, "key.changed", key.id, of=of, **_told(key))
        return key

    async def replace_secret(
        self, key_id: str, *, prefix: str, key_hash: str, previous_expires_at: float
    ) -> ApiKey | None:
        """Give a key another secret; the one it has works until the overlap ends, the one before no more.

        Returns:
            The key as it is now; ``None`` where there is none or it was revoked.
        """
        values = {
            "prefix": prefix,
            "hash": key_hash,
            "previous_prefix": api_keys.c.prefix,
            "previous_hash": api_keys.c.hash,
            "previous_expires_at": previous_expires_at,
            "previous_used_at": api_keys.c.last_used_at,
        }
        async with self._database.change() as connection:
            key = await _replace(connection, key_id, values)
            if key is not None:
                of, told = key.organisation_id, {"previous_expires_at": previous_expires_at}
                await self._database.tell(connection, "key.rotated", key_id, of=of, **told)
        return key

    async def mark_used(self, used_at: Mapping[str, float]) -> None:
        """Note when keys were last used, by the hashes of the secrets that opened them."""
        async with self._database.note() as connection:
            if seen := await _by_key(connection, used_at):
                await connection.execute(_MARK_USED, seen)

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


def _told(key: ApiKey) -> dict[str, Any]:
    """A key's rules as the audit log has them; of its limits those that there are."""
    return {
        "fleet": key.fleet,
        "regions": sorted(key.regions),
        "minimum_trust": key.minimum_trust,
        "models": None if key.models is None else sorted(key.models),
        "policy_hash": policy_hash(key.policy, key.models),
        "expires_at": key.expires_at,
        **codec.allowance_told(key.limits),
    }


async def _is_still(connection: AsyncConnection, seen: ApiKey) -> bool:
    """Whether a key allows what it was seen to. It stays so until the transaction ends."""
    query = select(api_keys).where(api_keys.c.id == seen.id).with_for_update()
    row = (await connection.execute(query)).mappings().one_or_none()
    return row is not None and _allowed(codec.api_key(row)) == _allowed(seen)


def _allowed(key: ApiKey) -> tuple[object, ...]:
    rules = (key.fleet, key.regions, key.minimum_trust, key.models, key.limits)
    return (key.name, key.expires_at, *rules)


async def _replace(connection: AsyncConnection, key_id: str, values: Mapping[str, Any]) -> ApiKey | None:
    alive = (api_keys.c.id == key_id) & api_keys.c.revoked_at.is_(None)
    statement = update(api_keys).where(alive).values(values).returning(*api_keys.c)
    row = (await connection.execute(statement)).mappings().one_or_none()
    return codec.api_key(row) if row is not None else None


_AT: BindParameter[float] = bindparam("at")
_SECRET: BindParameter[str] = bindparam("secret")


def _later(column: Column[Any]) -> ColumnElement[bool]:
    return or_(column.is_(None), column < _AT)


_OPENS_AS_PREVIOUS = (api_keys.c.previous_hash == _SECRET) & _later(api_keys.c.previous_used_at)
_MARK_USED = (
    update(api_keys)
    .where(or_(api_keys.c.hash == _SECRET, api_keys.c.previous_hash == _SECRET))
    .where(or_(_later(api_keys.c.last_used_at), _OPENS_AS_PREVIOUS))
    .values(
        last_used_at=case((_later(api_keys.c.last_used_at), _AT), else_=api_keys.c.last_used_at),
        previous_used_at=case((_OPENS_AS_PREVIOUS, _AT), else_=api_keys.c.previous_used_at),
    )
)
"""All of a use in one statement: a second pass over the keys would lock those that the first passed over, in
an order of its own."""


async def _by_key(connection: AsyncConnection, used_at: Mapping[str, float]) -> list[dict[str, Any]]:
    """What to note, by the keys whose rows are locked in this order: so two Hubs never wait for each other.

    The order of the secrets is none: in a rotation's overlap two of them are one key, and Hubs that saw one
    each would lock two such keys crosswise.
    """
    key_of: dict[str, str] = {}
    secrets = list(used_at)
    for start in range(0, len(secrets), _CHUNK):
        some = secrets[start : start + _CHUNK]
        query = select(api_keys.c.id, api_keys.c.hash, api_keys.c.previous_hash).where(
            or_(api_keys.c.hash.in_(some), api_keys.c.previous_hash.in_(some))
        )
        for key_id, *hashes in await connection.execute(query):
            key_of |= dict.fromkeys(hashes, key_id)
    known = sorted((key_of[secret], secret) for secret in secrets if secret in key_of)
    return [{"secret": secret, "at": used_at[secret]} for _, secret in known]


def _rules(
    regions: frozenset[str], models: frozenset[str] | None, limits: Allowance
) -> dict[str, str | int | None]:
    return {
        "regions": codec.write_set(regions),
        "models": None if models is None else codec.write_set(models),
        **codec.allowance_values(limits),
    }


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

    async def get(self, token_id: str) -> JoinToken | None:
        """The token with this id, whatever its state."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(join_tokens).where(join_tokens.c.id == token_id))
            row = rows.mappings().one_or_none()
        return codec.join_token(row) if row is not None else None

    async def page(
        self, organisation_id: str | None, *, after: str | None, limit: int
    ) -> Sequence[JoinToken]:
        """A page of the tokens of one organisation, or of all; see `hub.storage.paging`."""
        query = page_of(join_tokens, organisation_id, after=after, limit=limit)
        async with self._database.read() as connection:
            return [codec.join_token(row) for row in (await connection.execute(query)).mappings()]

    async def revoke(self, token_id: str, *, now: float) -> None:
        """End a token; the nodes it admitted stay."""
        alive = (join_tokens.c.id == token_id) & join_tokens.c.revoked_at.is_(None)
        async with self._database.change() as connection:
            ended = update(join_tokens).where(alive).values(revoked_at=now)
            of = await connection.scalar(ended.returning(join_tokens.c.organisation_id))
            if of is not None:
                await self._database.tell(connection, "join_token.revoked", token_id, of=of)
