"""Who may ask: keys, their expiry and the models on their own list.

Owns the copies of keys that spare each request a look into the database. Must not know HTTP, nodes or bodies.
A copy is dropped the moment a change of its key is announced; who still holds it sees `current` turn False.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from hub import refusals
from hub.changes import Change, KeyChanged
from hub.errors import RequestFailed, StorageUnavailable
from hub.keys import hash_secret, looks_valid
from hub.policy import Policy
from hub.receipts import policy_hash
from hub.storage.records import ApiKey

MAX_COPIES = 10_000
"""Keys kept; beyond it all are dropped and read again, which costs one query each."""


class KeySource(Protocol):
    """What is asked of storage."""

    async def by_hash(self, key_hash: str) -> ApiKey | None:
        """The key stored under this hash."""
        ...


@dataclass(slots=True, eq=False)
class Admitted:
    """A caller. ``current`` is False once the key has changed and must be looked at again.

    ``policy_hash`` names the rules in tickets and receipts.
    """

    key: ApiKey
    policy: Policy | None
    secret_hash: str = field(repr=False)
    current: bool = True
    policy_hash: str = field(init=False)

    def __post_init__(self) -> None:
        self.policy_hash = policy_hash(self.policy, self.key.models)


class Admission:
    """Answers who a secret belongs to."""

    def __init__(
        self,
        keys: KeySource,
        clock: Callable[[], float],
        on_use: Callable[[str, float], None] = lambda _secret_hash, _at: None,
    ) -> None:
        """Answer from storage.

        Args:
            keys: where keys are.
            clock: UTC seconds since the epoch.
            on_use: told the hash of each secret that opened a key, and when.
        """
        self._keys = keys
        self._clock = clock
        self._on_use = on_use
        self._copies: dict[str, Admitted] = {}
        self._epoch = 0

    async def authenticate(self, authorization: str | None) -> Admitted:
        """Find the caller behind an ``Authorization`` header.

        Raises:
            RequestFailed: ``invalid_api_key``, the same for every reason; ``database_unavailable``: the key
                is not known here, and nobody can be asked.
        """
        scheme, _, secret = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise _unknown()
        secret = secret.strip()
        key_hash = hash_secret(secret)
        if key_hash not in self._copies and not looks_valid(secret):
            raise _unknown()  # without a look into the database
        admitted = await self._admit(key_hash)
        self._on_use(key_hash, self._clock())
        return admitted

    async def admit(self, key: ApiKey) -> Admitted:
        """Find the caller that somebody is who may ask under a key without its secret.

        Who that is, is not judged here: the portal lets people of the key's organisation ask. From here on it
        is as with the secret: the key is read as requests read it, and refused as they are. It does not count
        as a use of the secret.

        Args:
            key: its record; only which one it is counts.

        Raises:
            RequestFailed: ``invalid_api_key``: it was revoked, has expired, or got another secret just now.
        """
        return await self._admit(key.hash)

    async def confirm(self, admitted: Admitted) -> Admitted:
        """The caller as of now: after any wait, before a node is chosen.

        Raises:
            RequestFailed: ``invalid_api_key``: the key was revoked or has expired meanwhile.
        """
        if admitted.current and admitted.key.admits(admitted.secret_hash, self._clock()):
            return admitted
        return await self._admit(admitted.secret_hash)

    async def _admit(self, key_hash: str) -> Admitted:
        admitted = self._copies.get(key_hash) or await self._read(key_hash)
        if admitted is None or not admitted.key.admits(key_hash, self._clock()):
            self._drop(key_hash)
            raise _unknown()
        return admitted

    def _drop(self, key_hash: str) -> None:
        """Keep no copy of a key that opens nothing: it is looked up each time, as one that never was."""
        if (copy := self._copies.pop(key_hash, None)) is not None:
            copy.current = False

    async def _read(self, key_hash: str) -> Admitted | None:
        """Read until nothing changed meanwhile: an answer from before a change must not outlive it."""
        while True:
            epoch = self._epoch
            try:
                key = await self._keys.by_hash(key_hash)
            except StorageUnavailable:
                known = self._copies.get(key_hash)  # by another request, which asked in time
                if known is not None:
                    return known
                raise refusals.database_unavailable() from None
            if epoch == self._epoch:
                break
        if key is None:
            return None
        if len(self._copies) >= MAX_COPIES:
            self.forget()
        # Two may have read at once: both get the one copy that a change will find.
        return self._copies.setdefault(key_hash, Admitted(key, key.policy, key_hash))

    def obey(self, change: Change) -> None:
        """Take note of a change; subscribed to `Changes`."""
        if isinstance(change, KeyChanged):
            self._epoch += 1
            for key_hash, admitted in list(self._copies.items()):
                if admitted.key.id == change.key_id:
                    admitted.current = False
                    del self._copies[key_hash]

    def forget(self) -> None:
        """Drop every copy: something changed and nobody can say what."""
        self._epoch += 1
        for admitted in self._copies.values():
            admitted.current = False
        self._copies.clear()


def check_model(admitted: Admitted, model: str) -> None:
    """Hold a request to its key's own list of models.

    Raises:
        RequestFailed: ``model_not_allowed``.
    """
    if not admitted.key.allows_model(model):
        raise RequestFailed("model_not_allowed", "This key's list of models does not have it.", param="model")


def _unknown() -> RequestFailed:
    return RequestFailed("invalid_api_key", "No valid API key was given (Authorization: Bearer sk-porten-…).")
