"""Requests that come again: the act is done once, and each gets the same answer.

Owns when an answer is kept, for how long and how it is hidden. After the draft of the IETF's HTTPAPI group,
draft-ietf-httpapi-idempotency-key-header-07. Must not know HTTP's routes or what is done.

An act in the database and its answer are one transaction (`Storage.together`), so that a crash leaves both or
neither: nothing is done twice and nothing is done without its answer. An act that reaches outside of the
database (a command to a node) cannot share one: a marker is kept before it, and whoever asks again after a
crash between the two is told that nobody knows, which is the truth, and nothing is done a second time.

A stolen database says neither which keys were used nor what was asked or answered: keys and fingerprints are
kept as HMACs (a fingerprint of a new password could else be guessed), answers encrypted with AES-GCM, all
under secrets derived from the Hub's own key.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hub.errors import AlreadyExists, HubError, IdempotencyConflict
from hub.identity import derived_secret
from hub.storage.records import AdminToken
from hub.storage.repositories import Storage

KEPT_S = 24 * 3600.0
"""Seconds for which an answer is kept."""

_NONCE_BYTES = 12


class Answer(msgspec.Struct, frozen=True):
    """What was answered: the status and the body, which holds what it must not be kept in the clear."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that carries a key.

    Attributes:
        token: who asks; others may use the same key.
        key: as the client drew it.
        request: whatever makes it this request and no other.
        reaches_out: the act does something outside of the database.
    """

    token: AdminToken
    key: str = field(repr=False)
    request: tuple[bytes, ...] = field(repr=False)
    reaches_out: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """An answer, and whether it is that of an earlier request."""

    answer: Answer
    is_repeated: bool


Act = Callable[[], Awaitable[Answer]]
Refuse = Callable[[HubError], Answer | None]
"""Says a refusal as an answer; ``None`` where it is not to be kept, since it says nothing of the act."""


class Idempotency:
    """Answers requests that carry a key.

    Args:
        storage: where answers are kept.
        key: the Hub's.
        clock: UTC seconds since the epoch.
    """

    def __init__(self, storage: Storage, key: Ed25519PrivateKey, clock: Callable[[], float]) -> None:
        self._storage = storage
        self._clock = clock
        self._secret = derived_secret(key, "idempotency keys")
        self._cipher = AESGCM(derived_secret(key, "idempotency answers"))
        self._under_way: set[tuple[str, str]] = set()

    async def once(self, asked: Asked, act: Act, refuse: Refuse) -> Given:
        """Do an act unless it was done, and answer.

        Args:
            asked: the request.
            act: does it; what it raises undoes it.
            refuse: says what `act` raised.

        Raises:
            IdempotencyConflict: the key was used for another request, is in use, or was and nobody knows how
                it ended.
            HubError: what `act` raised, where `refuse` does not say it.
        """
        name = self._digest(b"key", asked.key.encode())
        with self._claimed(asked.token.id, name):
            if (found := await self._answered(asked, name)) is not None:
                return Given(found, is_repeated=True)
            do = self._do_outside if asked.reaches_out else self._do
            return Given(await do(asked, name, act, refuse), is_repeated=False)

    async def _do(self, asked: Asked, name: str, act: Act, refuse: Refuse) -> Answer:
        try:
            async with self._storage.together():
                answer = await act()
                await self._keep(asked, name, answer)
        except IdempotencyConflict:
            raise
        except HubError as error:
            if (said := refuse(error)) is None:
                raise
            await self._keep(asked, name, said)
            return said
        return answer

    async def _do_outside(self, asked: Asked, name: str, act: Act, refuse: Refuse) -> Answer:
        await self._keep(asked, name, None)
        try:
            answer = await act()
        except HubError as error:
            if (said := refuse(error)) is None:
                await self._storage.idempotency.forget(asked.token.id, name)
                raise
            answer = said
        await self._storage.idempotency.finish(asked.token.id, name, self._seal(asked, name, answer))
        return answer

    @contextmanager
    def _claimed(self, token_id: str, name: str) -> Iterator[None]:
        """Hold off another of the same key in this process; between processes the database does."""
        claim = (token_id, name)
        if claim in self._under_way:
            raise IdempotencyConflict("idempotency_key_in_use")
        self._under_way.add(claim)
        try:
            yield
        finally:
            self._under_way.discard(claim)

    async def _answered(self, asked: Asked, name: str) -> Answer | None:
        kept = await self._storage.idempotency.get(asked.token.id, name, now=self._clock())
        if kept is None:
            return None
        if not hmac.compare_digest(kept.fingerprint, self._fingerprint(asked)):
            raise IdempotencyConflict("idempotency_key_reused")
        if kept.answer is None:
            raise IdempotencyConflict("idempotency_outcome_unknown")
        return self._open(asked, name, kept.answer)

    async def _keep(self, asked: Asked, name: str, answer: Answer | None) -> None:
        now, token = self._clock(), asked.token
        try:
            await self._storage.idempotency.add(
                token.id,
                name,
                organisation_id=token.organisation_id,
                fingerprint=self._fingerprint(asked),
                answer=None if answer is None else self._seal(asked, name, answer),
                expires_at=now + KEPT_S,
                now=now,
            )
        except AlreadyExists:
            raise IdempotencyConflict("idempotency_key_in_use") from None

    def _fingerprint(self, asked: Asked) -> str:
        return self._digest(b"request", *asked.request)

    def _digest(self, *parts: bytes) -> str:
        return hmac.new(self._secret, msgspec.msgpack.encode(parts), "sha256").hexdigest()

    def _seal(self, asked: Asked, name: str, answer: Answer) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, msgspec.msgpack.encode(answer), _place(asked, name))

    def _open(self, asked: Asked, name: str, sealed: bytes) -> Answer:
        try:
            opened = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(asked, name))
        except InvalidTag:  # sealed under another key of the Hub, or tampered with: it is nobody's answer
            raise IdempotencyConflict("idempotency_outcome_unknown") from None
        return msgspec.msgpack.decode(opened, type=Answer)


def _place(asked: Asked, name: str) -> bytes:
    """Binds an answer to its row: moved to another it opens nothing."""
    return f"{asked.token.id} {name}".encode()
