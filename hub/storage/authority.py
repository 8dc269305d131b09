"""Who acts, as they are in the transaction in which they act.

Owns the reading that a right rests on: until the transaction ends nobody ends the token or gives the account
another role. What a role may do is :mod:`hub.permissions`'s. Must not know what is done.
"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import AdminTokenInvalid, NotFound
from hub.permissions import Role
from hub.storage import codec
from hub.storage.records import AdminToken
from hub.storage.tables import accounts, admin_tokens, organisations


async def role_in(connection: AsyncConnection, by: str, organisation_id: str, *, now: float) -> Role:
    """The role by which an account or an admin token acts on an organisation.

    The organisation is held first, as by everybody who changes its people, so that nobody waits in a circle.

    Args:
        connection: of the transaction in which it acts.
        by: its id.
        organisation_id: the organisation.
        now: UTC seconds since the epoch.

    Raises:
        NotFound: there is no such organisation where ``by`` could see it.
        AdminTokenInvalid: the token has ended since it was let in.
    """
    mine = organisations.c.id == organisation_id
    held = select(organisations.c.id).where(mine).with_for_update(key_share=True)
    if await connection.scalar(held) is None:
        raise NotFound("organisation", organisation_id)
    member = (accounts.c.id == by) & (accounts.c.organisation_id == organisation_id)
    role = await connection.scalar(select(accounts.c.role).where(member))
    if role is not None:
        return codec.role(role)
    token = await held_token(connection, by, now)
    if token is None or not (token.is_operator or token.organisation_id == organisation_id):
        raise NotFound("organisation", organisation_id)
    return token.role


async def held_token(connection: AsyncConnection, token_id: str, now: float) -> AdminToken | None:
    """An admin token that acts; nobody ends it before this transaction does.

    Raises:
        AdminTokenInvalid: it has ended since it was let in.
    """
    query = select(admin_tokens).where(admin_tokens.c.id == token_id).with_for_update(read=True)
    row = (await connection.execute(query)).mappings().one_or_none()
    token = None if row is None else codec.admin_token(row)
    if token is not None and not token.is_active(now):
        raise AdminTokenInvalid
    return token
