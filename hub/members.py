"""Becoming a member: invitations that are handed over as a link.

Owns the token and how long it is good for. Who may invite whom is :mod:`hub.permissions`'s, decided in the
transaction of :mod:`hub.storage.members`. Must not know pages; no e-mail is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hub.accounts import AccountService, checked_email, checked_password
from hub.attempts import Attempts, Limit
from hub.errors import InvitationInvalid
from hub.identifiers import checked_name
from hub.keys import mint, parse
from hub.permissions import Role
from hub.storage.records import Account, Invitation
from hub.storage.repositories import Storage

INVITATION_PREFIX = "piv-"
INVITATION_S = 3 * 86_400
"""Seconds that an invitation is good for."""

_PER_INVITATION = Limit(attempts=10, window_s=900)
"""Else it could be used to ask which e-mail addresses have accounts."""


@dataclass(frozen=True, slots=True)
class IssuedInvitation:
    """A stored invitation with its token, to be shown once."""

    invitation: Invitation
    token: str = field(repr=False)


class MemberService:
    """Invitations.

    Args:
        storage: where they are kept.
        accounts: hashes the password of whoever accepts.
        clock: UTC seconds since the epoch.
    """

    def __init__(self, storage: Storage, accounts: AccountService, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._accounts = accounts
        self._clock = clock
        self._tries = Attempts(_PER_INVITATION)

    async def invite(self, by: str, *, name: str, role: Role) -> IssuedInvitation:
        """Make an invitation to the organisation of the account ``by``.

        Raises:
            InvalidInput: the name cannot be accepted.
            NotFound: whoever invites is gone.
            NotAllowed: they may not give this role.
        """
        minted, now = mint(INVITATION_PREFIX), self._clock()
        made = await self._storage.members.invite(
            by,
            name=checked_name(name),
            role=role,
            token_hash=minted.hash,
            now=now,
            expires_at=now + INVITATION_S,
        )
        return IssuedInvitation(made, minted.secret)

    async def find(self, token: str) -> Invitation:
        """The invitation behind a link.

        Raises:
            InvitationInvalid: there is none, or not any more.
        """
        token_hash = parse(token, INVITATION_PREFIX)
        found = token_hash and await self._storage.members.invitation(token_hash, now=self._clock())
        if not found:
            raise InvitationInvalid
        return found

    async def accept(self, token: str, *, email: str, password: str) -> Account:
        """Make the account; the invitation is then used up.

        Raises:
            InvitationInvalid: it lets nobody in.
            InvalidInput: the e-mail address or the password cannot be accepted.
            AlreadyExists: the e-mail address has an account.
            TooManyAttempts: it was tried too often.
        """
        found = await self.find(token)  # first: whoever has no invitation costs no hash
        self._tries.spend(found.id, now=self._clock())
        address = checked_email(email)
        password_hash = await self._accounts.hashed(checked_password(password))
        token_hash = parse(token, INVITATION_PREFIX)
        assert token_hash is not None, "an invitation was found under it"
        return await self._storage.members.accept(
            token_hash, email=address, password_hash=password_hash, now=self._clock()
        )
