"""Admin tokens: how they are made, and who a token says is asking.

Owns their form (`hub.keys` with a prefix of its own, so that neither is ever taken for the other), how long
they may last, and the limit on guessing. Must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hub.attempts import Attempts, Limit
from hub.errors import AdminTokenInvalid, InvalidInput
from hub.identifiers import checked_name
from hub.keys import ADMIN_TOKEN_PREFIX, hash_secret, looks_valid, mint
from hub.storage.records import AdminToken, Authority, Role
from hub.storage.repositories import Storage

DEFAULT_LIFETIME_S = 90 * 86_400.0
MAX_LIFETIME_S = 366 * 86_400.0
USED_EVERY_S = 60.0
"""Seconds within which a token's use is noted once."""

_GUESSES = Limit(attempts=20, window_s=600)  # well-formed ones that nobody was given, from one address


@dataclass(frozen=True, slots=True)
class IssuedAdminToken:
    """A stored token together with its secret, to be shown once."""

    token: AdminToken
    secret: str = field(repr=False)


class AdminTokenService:
    """Makes admin tokens and knows them again.

    Args:
        storage: where they are kept.
        clock: UTC seconds since the epoch.
        on_refused: told of each refused token that was well-formed: which one, where it exists, and from
            which address.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Callable[[], float],
        *,
        on_refused: Callable[[AdminToken | None, str], None] = lambda _token, _address: None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._on_refused = on_refused
        self._guesses = Attempts(_GUESSES)

    async def issue(
        self, by: Authority | None, organisation_id: str, *, name: str, role: Role, lifetime_s: float
    ) -> IssuedAdminToken:
        """Make and store a token.

        Args:
            by: who makes it; ``None`` is a command on the Hub's machine, which may do all.
            organisation_id: whose token it is.
            name: what people call it.
            role: what it may do: nothing that its maker may not.
            lifetime_s: seconds until it ends.

        Raises:
            NotAllowed: the maker's role, as it is when the token is stored, does not reach that far.
            AdminTokenInvalid: the maker is a token that has ended.
            InvalidInput: a field cannot be accepted.
        """
        if not 0 < lifetime_s <= MAX_LIFETIME_S:
            raise InvalidInput("expires", f"must be within {MAX_LIFETIME_S / 86_400:.0f} days")
        minted, now = mint(ADMIN_TOKEN_PREFIX), self._clock()
        token = await self._storage.admin_tokens.create(
            organisation_id,
            name=checked_name(name),
            prefix=minted.prefix,
            token_hash=minted.hash,
            role=role,
            expires_at=now + lifetime_s,
            now=now,
            by=None if by is None else by.id,
        )
        return IssuedAdminToken(token, minted.secret)

    async def is_still(self, token: AdminToken) -> bool:
        """Whether a token that let somebody in a while ago would do so now."""
        found = await self._storage.admin_tokens.get(token.id)
        return found is not None and found.is_active(self._clock())

    async def authenticate(self, secret: str, address: str) -> AdminToken:
        """The token with this secret, if it lets anybody in.

        Only what is well-formed is looked up and counts as a guess: the checksum refuses all else.

        Args:
            secret: as it was sent.
            address: where it comes from.

        Raises:
            AdminTokenInvalid: it lets nobody in, whatever the reason.
            TooManyAttempts: guessed too often from there.
        """
        if not looks_valid(secret, ADMIN_TOKEN_PREFIX):
            raise AdminTokenInvalid
        now = self._clock()
        self._guesses.check(address, now=now)
        token = await self._storage.admin_tokens.by_hash(hash_secret(secret))
        if token is None or not token.is_active(now):
            self._on_refused(token, address)
            self._guesses.spend(address, now=now)
            raise AdminTokenInvalid
        if token.last_used_at is None or now - token.last_used_at >= USED_EVERY_S:
            await self._storage.admin_tokens.mark_used(token.id, now=now)
        return token
