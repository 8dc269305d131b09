"""API keys: how they are made, read and hashed, and how what they allow is changed.

Owns the format ``sk-porten-`` + 32 characters of chance + 6 of checksum, so that a mistyped or invented key
is refused without a look into the database. Only the SHA-256 of a key is ever stored: with 190 bits of chance
in it a slow hash would add cost to every request and no safety.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING
from zlib import crc32

from hub.errors import InvalidInput, NotFound
from hub.identifiers import checked_name
from hub.policy import Fleet, TrustClass
from hub.quotas import UNLIMITED, Allowance, checked_allowance

if TYPE_CHECKING:  # storage reads this module's hash: typing alone must not close the circle
    from hub.storage.records import ApiKey
    from hub.storage.repositories import Storage

API_KEY_PREFIX = "sk-porten-"
JOIN_TOKEN_PREFIX = "pjt-"  # noqa: S105 - a prefix, not a secret
ADMIN_TOKEN_PREFIX = "padm-"  # noqa: S105 - a prefix, not a secret
SHOWN_CHARACTERS = 16
"""How much of a key lists show: enough to tell keys apart, six characters of its chance."""

MAX_OVERLAP_S = 90 * 86_400
"""Seconds for which two secrets may open one key after a rotation."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARACTERS = 32
_CHECKSUM_CHARACTERS = 6


@dataclass(frozen=True, slots=True)
class MintedSecret:
    """A new secret, the one time it exists in the clear."""

    secret: str = field(repr=False)
    prefix: str
    hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A stored key together with its secret, to be shown once."""

    key: ApiKey
    secret: str = field(repr=False)


def mint(prefix: str = API_KEY_PREFIX) -> MintedSecret:
    """Make a secret with a checksum at its end."""
    body = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARACTERS))
    secret = body + _checksum(body)
    return MintedSecret(secret=secret, prefix=secret[:SHOWN_CHARACTERS], hash=hash_secret(secret))


def looks_valid(secret: str, prefix: str = API_KEY_PREFIX) -> bool:
    """Whether the text has the form and the checksum of a key. Says nothing about whether it exists."""
    body, checksum = secret[:-_CHECKSUM_CHARACTERS], secret[-_CHECKSUM_CHARACTERS:]
    return (
        len(secret) == len(prefix) + _RANDOM_CHARACTERS + _CHECKSUM_CHARACTERS
        and secret.startswith(prefix)
        and secret.isascii()
        and _checksum(body) == checksum
    )


def hash_secret(secret: str) -> str:
    """What is stored and looked up in place of a secret: its SHA-256 in hex."""
    return sha256(secret.encode()).hexdigest()


def parse(secret: str, prefix: str = API_KEY_PREFIX) -> str | None:
    """The hash under which a well-formed key would be stored, ``None`` for any other text."""
    return hash_secret(secret) if looks_valid(secret, prefix) else None


async def issue_key(
    storage: Storage,
    organisation_id: str,
    *,
    name: str,
    now: float,
    fleet: Fleet = Fleet.OWN,
    regions: Collection[str] = (),
    minimum_trust: TrustClass = TrustClass.COMMUNITY,
    models: Collection[str] | None = None,
    expires_at: float | None = None,
    limits: Allowance = UNLIMITED,
) -> IssuedKey:
    """Make and store a key. The safe side is the default: the organisation's own nodes only.

    Args:
        storage: where it is kept.
        organisation_id: whose key it is.
        name: what people call it, 1 to 100 characters.
        now: UTC seconds since the epoch.
        fleet: whose nodes it may use.
        regions: codes of the operator's tree; none means anywhere.
        minimum_trust: the least trust class.
        models: model ids it may use; ``None`` means all.
        expires_at: UTC seconds since the epoch; ``None`` means never.
        limits: how much it may use.

    Raises:
        InvalidInput: a field cannot be accepted.
    """
    name = checked_name(name)
    if expires_at is not None and expires_at <= now:
        raise InvalidInput("expires", "the key would have expired already")
    await _check_regions(storage, regions)
    minted = mint()
    key = await storage.keys.create(
        organisation_id,
        name=name,
        prefix=minted.prefix,
        key_hash=minted.hash,
        fleet=fleet,
        regions=frozenset(regions),
        minimum_trust=minimum_trust,
        models=None if models is None else frozenset(models),
        expires_at=expires_at,
        limits=checked_allowance(limits),
        now=now,
    )
    return IssuedKey(key=key, secret=minted.secret)


async def change_key(
    storage: Storage,
    key: ApiKey,
    *,
    name: str,
    now: float,
    fleet: Fleet,
    regions: Collection[str],
    minimum_trust: TrustClass,
    models: Collection[str] | None,
    expires_at: float | None,
    limits: Allowance,
) -> ApiKey | None:
    """Replace everything that a key allows; see `issue_key` for what each means. Its secret stays.

    Returns:
        The key as it is now; ``None``, with nothing done, where somebody has changed or revoked it since it
        was read: read it again.

    Raises:
        InvalidInput: a field cannot be accepted.
        NotFound: the key is revoked: it does not come back.
    """
    if key.revoked_at is not None:
        raise NotFound("key", key.id)
    if expires_at is not None and expires_at <= now and expires_at != key.expires_at:
        raise InvalidInput("expires", "the key would have expired already")
    await _check_regions(storage, set(regions) - key.regions)
    return await storage.keys.replace_rules(
        key,
        name=checked_name(name),
        fleet=fleet,
        regions=frozenset(regions),
        minimum_trust=minimum_trust,
        models=None if models is None else frozenset(models),
        expires_at=expires_at,
        limits=checked_allowance(limits),
    )


async def rotate_key(storage: Storage, key: ApiKey, *, now: float, overlap_s: float) -> IssuedKey:
    """Give a key another secret. Rules, limits and usage stay; the secret before works for a while yet.

    There are never more than two: a secret that an earlier rotation left ends now.

    Args:
        storage: where the key is.
        key: as it is.
        now: UTC seconds since the epoch.
        overlap_s: seconds for which the secret before still works; 0 ends it at once.

    Raises:
        InvalidInput: the overlap is too long, or the key has expired.
        NotFound: the key was revoked.
    """
    if not 0 <= overlap_s <= MAX_OVERLAP_S:
        raise InvalidInput("overlap", f"must be at most {MAX_OVERLAP_S // 86_400} days")
    if not key.is_active(now):
        raise InvalidInput("key", "has ended: make another")
    minted = mint()
    rotated = await storage.keys.replace_secret(
        key.id, prefix=minted.prefix, key_hash=minted.hash, previous_expires_at=now + overlap_s
    )
    if rotated is None:
        raise NotFound("key", key.id)
    return IssuedKey(key=rotated, secret=minted.secret)


async def _check_regions(storage: Storage, regions: Collection[str]) -> None:
    tree = await storage.regions.tree()
    for region in regions:
        if region not in tree:
            raise InvalidInput("regions", f"there is no region {region!r} on this Hub")


def _checksum(body: str) -> str:
    value = crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_CHARACTERS):
        value, digit = divmod(value, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
