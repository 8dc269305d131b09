"""The second step at sign-in: setting it up, asking for it, getting by without the phone.

Owns the order of things and the limit on guessing. How codes are computed and kept is `hub.totp`'s matter.
Must not know passwords, cookies or pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import totp
from hub.attempts import Attempts, Limit
from hub.errors import NotFound, SecondStepRefused
from hub.identity import derived_secret
from hub.storage.records import Account, SecondStep
from hub.storage.repositories import Storage

_PER_ACCOUNT = Limit(attempts=5, window_s=900)
"""By account alone: whoever guesses here has the password, and may come from anywhere."""


@dataclass(frozen=True, slots=True)
class Enrolment:
    """A secret that is yet to be confirmed, to be shown to its owner."""

    uri: str = field(repr=False)
    text: str = field(repr=False)


class SecondStepService:
    """Second steps of accounts.

    Args:
        storage: where they are kept.
        key: the Hub's, from which what seals them is derived.
        issuer: what apps call this Hub.
        clock: UTC seconds since the epoch.
    """

    def __init__(
        self, storage: Storage, key: Ed25519PrivateKey, issuer: str, clock: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._keys = totp.Keys(
            sealing=derived_secret(key, "second step secrets"), hashing=derived_secret(key, "recovery codes")
        )
        self._issuer = issuer
        self._clock = clock
        self._guesses = Attempts(_PER_ACCOUNT)

    async def is_on(self, account_id: str) -> bool:
        """Whether the account's sign-in asks for a code."""
        return account_id in await self._storage.second_steps.confirmed([account_id])

    async def begin(self, account: Account) -> Enrolment:
        """Draw a secret. It counts for nothing until `confirm`.

        Raises:
            SecondStepRefused: the account has one that counts already.
        """
        secret = totp.new_secret()
        sealed = totp.seal(self._keys, account.id, secret)
        if not await self._storage.second_steps.begin(account.id, sealed, now=self._clock()):
            raise SecondStepRefused
        return self._shown(account, secret)

    async def pending(self, account: Account) -> Enrolment | None:
        """The secret that waits for its first code, to be shown again; ``None`` where none does."""
        step = await self._storage.second_steps.get(account.id)
        if step is None or step.confirmed_at is not None:
            return None
        secret = totp.unseal(self._keys, account.id, step.sealed_secret)
        return None if secret is None else self._shown(account, secret)

    async def confirm(self, account: Account, code: str) -> list[str]:
        """Let the secret count, once a code shows that its owner has it.

        Returns:
            The recovery codes, in the clear this one time.

        Raises:
            SecondStepRefused: the code is not of that secret, or none waits.
            TooManyAttempts: too many wrong ones.
        """
        now = self._clock()
        self._guesses.spend(account.id, now=now)
        step = await self._storage.second_steps.get(account.id)
        taken = None if step is None else self._step_of(step, code, now)
        if step is None or taken is None:
            raise SecondStepRefused
        codes = totp.new_recovery_codes()
        confirmed = await self._storage.second_steps.confirm(
            account.id,
            sealed_secret=step.sealed_secret,
            step=taken,
            code_hashes=self._hashes(account.id, codes),
            now=now,
        )
        if not confirmed:
            raise SecondStepRefused
        self._guesses.refund(account.id)
        return codes

    async def check(self, account_id: str, code: str) -> None:
        """Take a code of the app or a recovery code, which is then used up.

        Raises:
            SecondStepRefused: it is wrong, was taken before, or is too old.
            TooManyAttempts: too many wrong ones for this account.
        """
        now = self._clock()
        self._guesses.spend(account_id, now=now)
        if not await self._takes(account_id, code, now):
            raise SecondStepRefused
        self._guesses.refund(account_id)

    async def new_codes(self, account_id: str) -> list[str]:
        """Put ten other recovery codes in place of those there are, and return them, this once."""
        codes = totp.new_recovery_codes()
        try:
            await self._storage.second_steps.replace_codes(account_id, self._hashes(account_id, codes))
        except NotFound:
            raise SecondStepRefused from None
        return codes

    async def switch_off(self, account_id: str) -> None:
        """Let the password alone sign the account in again; whoever asks has proved themselves before."""
        await self._storage.second_steps.switch_off(account_id)

    async def _takes(self, account_id: str, code: str, now: float) -> bool:
        stored = self._storage.second_steps
        step = await stored.get(account_id)
        if step is None or step.confirmed_at is None:
            return False
        if totp.looks_like_recovery(code):
            return await stored.spend_code(account_id, totp.hash_recovery(self._keys, account_id, code))
        taken = self._step_of(step, code, now)
        return taken is not None and await stored.spend_step(account_id, taken)

    def _step_of(self, step: SecondStep, code: str, now: float) -> int | None:
        secret = totp.unseal(self._keys, step.account_id, step.sealed_secret)
        if secret is None:
            return None
        return totp.matching_step(secret, code, now=now, last_step=step.last_step)

    def _hashes(self, account_id: str, codes: list[str]) -> list[str]:
        return [totp.hash_recovery(self._keys, account_id, code) for code in codes]

    def _shown(self, account: Account, secret: bytes) -> Enrolment:
        uri = totp.provisioning_uri(secret, account=account.email, issuer=self._issuer)
        return Enrolment(uri=uri, text=totp.secret_text(secret))
