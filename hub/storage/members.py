"""Who belongs to an organisation: invitations, roles, and the end of a membership.

Owns the transactions in which that is decided. Each holds the organisation's row first, so that two changes
at the same moment are decided one after the other, and reads the roles of both people inside it; the rules
are :mod:`hub.permissions`'s. Must not know passwords in the clear, tokens or pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.acting import Personal
from hub.errors import AlreadyExists, InvitationInvalid, NotAllowed, NotFound
from hub.identifiers import new_id
from hub.permissions import Role, check_change, check_grant, check_reach
from hub.storage import codec
from hub.storage.authority import held_token
from hub.storage.engine import Database
from hub.storage.people import end_sessions
from hub.storage.records import Account, Invitation
from hub.storage.tables import (
    accounts,
    admin_tokens,
    invitations,
    organisations,
    recovery_codes,
    second_steps,
)


class Members:
    """Changes of who belongs to an organisation.

    ``by`` is everywhere the id of the account or the admin token that acts, ``None`` for a command on the
    Hub's machine. An account must belong to the same organisation, an admin token too unless it is an
    operator's, or the other is not found. Where an admin token acts that has ended meanwhile,
    `AdminTokenInvalid` is raised.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def change_role(self, account_id: str, to: Role, *, by: str | None) -> Account:
        """Give an account another role; its open sessions have it from the next page on.

        Returns:
            The account as it is now.

        Raises:
            NotFound: there is no such account where ``by`` could see it.
            NotAllowed: ``by`` may not, or nobody would be left who can put it right.
        """
        async with self._database.change() as connection:
            account, actor = await _both(connection, account_id, by, now=self._database.clock())
            check_change(actor, account.role, to, others=await _others(connection, account))
            mine = accounts.c.id == account_id
            row = await connection.execute(
                update(accounts).where(mine).values(role=to.value).returning(*accounts.c)
            )
            if account.role is not to:
                told = {"before": account.role.value, "role": to.value}
                await self._tell(connection, "account.role_changed", account, told)
            return codec.account(row.mappings().one())

    async def remove(self, account_id: str, *, by: str | None) -> Account:
        """Delete an account with its sessions. The log keeps the e-mail address, until it is erased.

        Raises:
            NotFound: there is no such account where ``by`` could see it.
            NotAllowed: ``by`` may not, or nobody would be left who can put it right.
        """
        async with self._database.change() as connection:
            account, actor = await _both(connection, account_id, by, now=self._database.clock())
            check_change(actor, account.role, None, others=await _others(connection, account))
            await connection.execute(delete(accounts).where(accounts.c.id == account_id))
            told = {"role": account.role.value, "email": Personal("email", account.email)}
            await self._tell(connection, "account.removed", account, told)
        return account

    async def sign_out(self, account_id: str, *, by: str | None) -> int:
        """End every session of an account; how many there were.

        Raises:
            NotFound: there is no such account where ``by`` could see it.
            NotAllowed: ``by`` may not.
        """
        async with self._database.note() as connection:
            account = await _reached(connection, account_id, by, now=self._database.clock())
            ended = await end_sessions(connection, account_id)
            await self._tell(connection, "account.signed_out_everywhere", account, {"sessions": ended})
        return ended

    async def reset_second_step(self, account_id: str, *, by: str | None) -> bool:
        """Switch an account's second step off, for somebody who has lost it; whether there was one.

        Its sessions end: whoever holds one may be the one who asked for it.

        Raises:
            NotFound: there is no such account where ``by`` could see it.
            NotAllowed: ``by`` may not, or it is their own: that takes a code.
        """
        if by == account_id:
            raise NotAllowed("your own second step is switched off on your account page, with a code")
        async with self._database.note() as connection:
            account = await _reached(connection, account_id, by, now=self._database.clock())
            gone = await connection.execute(
                delete(second_steps).where(second_steps.c.account_id == account_id)
            )
            await connection.execute(delete(recovery_codes).where(recovery_codes.c.account_id == account_id))
            if gone.rowcount:
                await end_sessions(connection, account_id)
                await self._tell(connection, "account.second_step_reset", account, {})
        return bool(gone.rowcount)

    async def invite(
        self, by: str, *, name: str, role: Role, token_hash: str, now: float, expires_at: float
    ) -> Invitation:
        """Store an invitation to the organisation of the account that invites.

        Raises:
            NotFound: whoever invites is gone.
            NotAllowed: they may not give this role.
        """
        async with self._database.note() as connection:
            inviter, _ = await _both(connection, by, None, now=now)
            check_grant(inviter.role, role)
            made = Invitation(
                id=new_id("inv"),
                organisation_id=inviter.organisation_id,
                name=name,
                role=role,
                invited_by=by,
                created_at=now,
                expires_at=expires_at,
            )
            values = codec.values_of(made, invitations) | {"hash": token_hash, "role": role.value}
            await connection.execute(insert(invitations).values(values))
            told = {"role": role.value, "expires_at": expires_at}
            await self._database.tell(
                connection, "invitation.created", made.id, of=inviter.organisation_id, **told
            )
        return made

    async def invitations(self, organisation_id: str, *, now: float) -> list[Invitation]:
        """An organisation's invitations that still let somebody in, the newest first."""
        columns = invitations.c
        alive = (columns.organisation_id == organisation_id) & (columns.expires_at > now)
        query = select(invitations).where(alive).order_by(columns.created_at.desc(), columns.id)
        async with self._database.read() as connection:
            return [codec.invitation(row) for row in (await connection.execute(query)).mappings()]

    async def invitation(self, token_hash: str, *, now: float) -> Invitation | None:
        """The invitation that a token of this hash is, unless it is over."""
        alive = (invitations.c.hash == token_hash) & (invitations.c.expires_at > now)
        async with self._database.read() as connection:
            row = (await connection.execute(select(invitations).where(alive))).mappings().one_or_none()
        return codec.invitation(row) if row is not None else None

    async def withdraw(self, invitation_id: str, *, by: str) -> None:
        """End an invitation of the organisation of the account ``by``.

        Raises:
            NotFound: there is none where ``by`` could see it.
            NotAllowed: they may not give its role, so not take it back either.
        """
        async with self._database.note() as connection:
            inviter, _ = await _both(connection, by, None, now=self._database.clock())
            mine = (invitations.c.id == invitation_id) & (
                invitations.c.organisation_id == inviter.organisation_id
            )
            row = (await connection.execute(select(invitations).where(mine))).mappings().one_or_none()
            if row is None:
                raise NotFound("invitation", invitation_id)
            check_grant(inviter.role, codec.invitation(row).role)
            await connection.execute(delete(invitations).where(mine))
            await self._database.tell(
                connection, "invitation.withdrawn", invitation_id, of=inviter.organisation_id
            )

    async def accept(self, token_hash: str, *, email: str, password_hash: str, now: float) -> Account:
        """Make the account that an invitation gives leave for. It works once.

        Raises:
            InvitationInvalid: it is wrong, used, withdrawn or expired, or whoever invited may no longer give
                this role.
            AlreadyExists: the e-mail address has an account; the invitation stays.
        """
        try:
            async with self._database.change() as connection:
                invitation = await _spend(connection, token_hash, now)
                account = Account(
                    id=new_id("acct"),
                    organisation_id=invitation.organisation_id,
                    email=email,
                    password_hash=password_hash,
                    role=invitation.role,
                    created_at=now,
                )
                values = codec.values_of(account, accounts) | {"role": account.role.value}
                await connection.execute(insert(accounts).values(values))
                told = {"role": account.role.value, "invitation": invitation.id}
                await self._tell(connection, "account.joined", account, told)
        except IntegrityError:
            raise AlreadyExists("account", email) from None
        return account

    async def _tell(
        self, connection: AsyncConnection, action: str, account: Account, told: Mapping[str, Any]
    ) -> None:
        await self._database.tell(connection, action, account.id, of=account.organisation_id, **told)


async def _both(
    connection: AsyncConnection, account_id: str, by: str | None, *, now: float
) -> tuple[Account, Role | None]:
    """The account and the role of whoever acts, as they are once nobody else changes its organisation.

    For an operator's account every organisation is held, in one order: operators are counted over the Hub.
    What is out of reach is not found before anything is held, as if it had never been.
    """
    known = select(accounts.c.organisation_id, accounts.c.role).where(accounts.c.id == account_id)
    if by is not None:
        known = known.where(_in_reach_of(by))
    row = (await connection.execute(known)).one_or_none()
    if row is None:
        raise NotFound("member", account_id)
    of, role = row
    held = select(organisations.c.id).order_by(organisations.c.id).with_for_update(key_share=True)
    if role != Role.OPERATOR.value:
        held = held.where(organisations.c.id == of)
    await connection.execute(held)
    people = select(accounts).where(
        accounts.c.organisation_id == of, accounts.c.id.in_([account_id, by or ""])
    )
    found = {row["id"]: codec.account(row) for row in (await connection.execute(people)).mappings()}
    if account_id not in found:
        raise NotFound("member", account_id)
    if by is None or by in found:
        return found[account_id], None if by is None else found[by].role
    token = await held_token(connection, by, now)
    if token is None or not (token.is_operator or token.organisation_id == of):
        raise NotFound("member", account_id)
    return found[account_id], token.role


def _in_reach_of(by: str) -> ColumnElement[bool]:
    """The accounts that somebody could see: of their own organisation, an operator's token those of all."""
    actor, token = accounts.alias(), admin_tokens.c
    home = select(actor.c.organisation_id).where(actor.c.id == by)
    everybody = (token.role == Role.OPERATOR.value) | (token.organisation_id == accounts.c.organisation_id)
    return accounts.c.organisation_id.in_(home) | select(token.id).where(token.id == by, everybody).exists()


async def _reached(connection: AsyncConnection, account_id: str, by: str | None, *, now: float) -> Account:
    account, actor = await _both(connection, account_id, by, now=now)
    if actor is not None and by != account_id:
        check_reach(actor, account.role)
    return account


async def _others(connection: AsyncConnection, account: Account) -> int:
    """How many others have the role: in the organisation, of operators on the whole Hub."""
    same: ColumnElement[bool] = (accounts.c.role == account.role.value) & (accounts.c.id != account.id)
    if account.role is not Role.OPERATOR:
        same &= accounts.c.organisation_id == account.organisation_id
    return int(await connection.scalar(select(func.count()).select_from(accounts).where(same)) or 0)


async def _spend(connection: AsyncConnection, token_hash: str, now: float) -> Invitation:
    """Take an invitation out; of two who come with it at once, one gets it."""
    mine = (invitations.c.hash == token_hash) & (invitations.c.expires_at > now)
    row = (await connection.execute(select(invitations).where(mine))).mappings().one_or_none()
    if row is None:
        raise InvitationInvalid
    invitation = codec.invitation(row)
    try:  # the organisation first, as whoever withdraws it does: else each could wait for the other
        inviter, _ = await _both(connection, invitation.invited_by, None, now=now)
        check_grant(inviter.role, invitation.role)
    except (NotFound, NotAllowed):
        raise InvitationInvalid from None
    if not (await connection.execute(delete(invitations).where(mine))).rowcount:
        raise InvitationInvalid
    return invitation
