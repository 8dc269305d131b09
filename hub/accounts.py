"""People's accounts: making them, and signing in with a password.

Owns password rules, hashing (argon2id, in a thread: one takes tens of milliseconds on purpose) and the limit
on guessing. Must not know cookies, forms or what an account may do.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from hub.attempts import Attempts, Limit
from hub.errors import InvalidInput, SignInRefused, TooManyAttempts
from hub.storage.records import Account, Role
from hub.storage.repositories import Storage

MINIMUM_PASSWORD = 12
MAXIMUM_PASSWORD = 1024  # bytes are hashed; without a bound a form could keep a core busy

_PER_ACCOUNT_AND_ADDRESS = Limit(attempts=5, window_s=900)
_PER_ADDRESS = Limit(attempts=50, window_s=900)  # one password tried on many accounts
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_EMAIL_LIMIT = 254  # RFC 5321
_MAX_HASHES_AT_ONCE = 2  # each takes 64 MiB


class AccountService:
    """Accounts with passwords.

    Args:
        storage: where accounts are kept.
        clock: UTC seconds since the epoch.
        hasher: argon2 with its cost; tests pass a cheap one.
        on_refused: told of each refused sign-in: whose account was tried, where there is one, and from which
            address. What was typed is not passed on: it may be a password in the wrong field.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float],
        *,
        hasher: PasswordHasher | None = None,
        on_refused: Callable[[Account | None, str], None] = lambda _account, _address: None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._hasher = hasher or PasswordHasher()
        self._on_refused = on_refused
        self._at_once = asyncio.Semaphore(_MAX_HASHES_AT_ONCE)
        self._pairs = Attempts(_PER_ACCOUNT_AND_ADDRESS)
        self._addresses = Attempts(_PER_ADDRESS)
        self._decoy: str | None = None

    async def create(
        self, organisation_id: str, *, email: str, password: str, role: Role, by: str | None = None
    ) -> Account:
        """Add an account.

        ``by`` is the id of the account or the admin token that makes it, ``None`` for a command on the Hub's
        machine.

        Raises:
            InvalidInput: the e-mail address or the password cannot be accepted.
            AlreadyExists: the e-mail address has an account.
            NotAllowed: ``by`` may not give this role, as it is once the password is hashed.
            AdminTokenInvalid: the token ``by`` has ended by then.
        """
        email = checked_email(email)
        password_hash = await self.hashed(checked_password(password))
        return await self._storage.accounts.create(
            organisation_id, email=email, password_hash=password_hash, role=role, now=self._clock(), by=by
        )

    async def change_password(
        self, account_id: str, password: str, *, keep_session: str | None = None
    ) -> None:
        """Replace a password and end the account's sessions, but perhaps the one it is done from.

        Raises:
            InvalidInput: the password cannot be accepted.
        """
        password_hash = await self.hashed(checked_password(password))
        await self._storage.accounts.change_password(account_id, password_hash, keep_session=keep_session)

    async def prove(self, account: Account, password: str, *, address: str) -> None:
        """Check the password of somebody signed in, before something that a borrowed browser must not do.

        Raises:
            SignInRefused: it is wrong.
            TooManyAttempts: guessed too often, here and at sign-in together.
        """
        await self.sign_in(account.email, password, address=address)

    async def sign_in(self, email: str, password: str, *, address: str) -> Account:
        """Check a password. An unknown address costs the same work and gets the same answer.

        Args:
            email: as typed.
            password: as typed.
            address: where the attempt comes from.

        Raises:
            SignInRefused: wrong, whichever of the two it is.
            TooManyAttempts: guessed too often from there, or for that account from there.
        """
        now, pair = self._clock(), f"{email.lower()}\0{address}"
        try:
            self._pairs.spend(pair, now=now)
            self._addresses.spend(address, now=now)
        except TooManyAttempts:
            self._on_refused(None, address)
            raise
        account = await self._storage.accounts.by_email(email)
        usable = account is not None and account.has_password
        decoy = await self._decoy_hash()  # in any case: the first time it is a hash more
        stored = account.password_hash if account is not None and usable else decoy
        if not await self._verify(stored, password) or account is None or not usable:
            self._on_refused(account, address)
            raise SignInRefused
        self._pairs.refund(pair)
        self._addresses.refund(address)
        await self._renew(account, password)
        return account

    async def _renew(self, account: Account, password: str) -> None:
        """Store the password under today's cost if it was hashed under an older one."""
        if self._hasher.check_needs_rehash(account.password_hash):
            await self._storage.accounts.renew_hash(
                account.id, old=account.password_hash, new=await self.hashed(password)
            )

    async def hashed(self, password: str) -> str:
        """What is stored in place of a password."""
        async with self._at_once:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def _verify(self, stored: str, password: str) -> bool:
        if len(password) > MAXIMUM_PASSWORD:
            return False
        async with self._at_once:
            try:
                return await asyncio.to_thread(self._hasher.verify, stored, password)
            except (VerifyMismatchError, VerificationError, InvalidHashError):
                return False

    async def _decoy_hash(self) -> str:
        if self._decoy is None:
            self._decoy = await self.hashed("a password that nobody has")
        return self._decoy


def checked_email(email: str) -> str:
    """An e-mail address, stripped and in lower case.

    Raises:
        InvalidInput: it is not one.
    """
    email = email.strip().lower()
    if not _EMAIL.fullmatch(email) or len(email) > _EMAIL_LIMIT or not email.isprintable():
        raise InvalidInput("email", "is not an e-mail address")
    return email


def checked_password(password: str) -> str:
    """A password that is long enough. Length is the only rule: others make passwords worse.

    Raises:
        InvalidInput: it is too short, or beyond all reason.
    """
    if len(password) < MINIMUM_PASSWORD:
        raise InvalidInput("password", f"must have at least {MINIMUM_PASSWORD} characters")
    if len(password) > MAXIMUM_PASSWORD:
        raise InvalidInput("password", f"must have at most {MAXIMUM_PASSWORD} characters")
    return password
