"""Whose database it is: that of one Hub, which is known by its key.

Owns the taking of a database into use. Tickets, receipts, credentials and sealed values of one key are worth
nothing under another, so two Hubs with keys of their own must not share one. Must not know the key's file,
nor how the schema is brought up to date: :mod:`hub.storage.migrate`.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.errors import HubKeyMismatch
from hub.storage import migrate
from hub.storage.repositories import Storage
from tunnel.identity import encode_public_key, fingerprint


async def take(storage: Storage, key: Ed25519PrivateKey) -> None:
    """Bring the schema up to date and make it the database of the Hub with this key, unless it is another's.

    Of several that take a new one at the same moment one gets it. Another's is left as it is.

    Raises:
        HubKeyMismatch: it is the database of a Hub with another key.
        StorageUnavailable: the schema cannot be brought up to date.
    """
    await check(storage, key)
    await storage.migrate()
    own = _public(key)
    _hold(await storage.settings.claim(own), own)


async def hand_over(storage: Storage, key: Ed25519PrivateKey) -> None:
    """The same, whoever's it was: its Hub goes on with this key, and the audit log tells so.

    Raises:
        StorageUnavailable: the schema cannot be brought up to date.
    """
    await storage.migrate()
    await storage.settings.replace_hub_key(_public(key))


async def check(storage: Storage, key: Ed25519PrivateKey) -> None:
    """Whether the database is this key's Hub's, or still nobody's. It may be of an older revision.

    Raises:
        HubKeyMismatch: it is the database of a Hub with another key.
    """
    _hold(await holder(storage), _public(key))


async def holder(storage: Storage) -> str | None:
    """The public key of the Hub whose database it is; None where it is nobody's yet, or no Hub's at all."""
    if not migrate.is_known(await migrate.revision_of(storage.database)):
        return None
    return await storage.settings.hub_key()


def _hold(known: str | None, own: str) -> None:
    if known is not None and known != own:
        raise HubKeyMismatch(fingerprint(own), fingerprint(known))


def _public(key: Ed25519PrivateKey) -> str:
    return encode_public_key(key.public_key())
