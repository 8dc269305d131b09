"""Who acts, as they are in the transaction in which they act.

Owns the reading that a right rests on: until the transaction ends nobody ends the token or gives the account
another role. What a role may do is :mod:`hub.permissions`'s. Must not know what is done.

Every act is held to :func:`check_leave` where it is told, by :meth:`hub.storage.engine.Database.tell`; acts
on people, which depend on two roles, ask :func:`role_in` before.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.acting import Actor
from hub.errors import AdminTokenInvalid, NotAllowed, NotFound, SignedOut
from hub.permissions import Role
from hub.storage import codec
from hub.storage.records import AdminToken
from hub.storage.tables import accounts, admin_tokens, organisations, portal_sessions


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


async def check_leave(connection: AsyncConnection, actor: Actor, *, now: float) -> None:
    """Whether somebody who was let in a while ago would still be let in as the same.

    The caller holds the head of the audit log, and nobody takes a right away without writing an event: so
    what is read here stays until the transaction ends, and no further row has to be locked.

    Args:
        connection: of the transaction in which it acts, on which nothing was done to the actor itself.
        actor: who acts. Those whose right does not end are not looked at.
        now: UTC seconds since the epoch.

    Raises:
        SignedOut: a person whose session has ended, or whose account is gone.
        NotAllowed: a person who has another role now.
        AdminTokenInvalid: a token that has ended.
    """
    if actor.leave is None:
        return
    if actor.leave.session is None:
        token = await connection.execute(select(admin_tokens).where(admin_tokens.c.id == actor.id))
        row = token.mappings().one_or_none()
        if row is None or not codec.admin_token(row).is_active(now):
            raise AdminTokenInvalid
        return
    role = await connection.scalar(_role_by_session(actor.id, actor.leave.session, now))
    if role is None:
        raise SignedOut
    if codec.role(role) is not actor.leave.role:
        raise NotAllowed("you have another role since this page was opened, so nothing was done")


def _role_by_session(account_id: str, session: str, now: float) -> Select[Any]:
    alive = (portal_sessions.c.id == session) & (portal_sessions.c.expires_at > now)
    query = select(accounts.c.role).join(portal_sessions, portal_sessions.c.account_id == accounts.c.id)
    return query.where(accounts.c.id == account_id, alive)
