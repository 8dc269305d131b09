"""Places in the audit log, as they are told to those who see a part of it.

Owns their sealing. The log is one chain of everybody's events: a plain number, and the gap to the next, would
tell an organisation how much others do and are refused. So a place is told encrypted (AES-SIV, RFC 5297: the
same place is always the same text) under a secret of the Hub's own key. Must not know events.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from hub.identity import derived_secret

PLACE = r"^[A-Za-z0-9_-]{32}$"
"""The form of a sealed place."""
_BYTES = 8


class LogPlaces:
    """Seals places, which are sequences of events, and opens them."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._cipher = AESSIV(derived_secret(key, "places in the audit log"))

    def seal(self, sequence: int) -> str:
        """A place as it is told."""
        return urlsafe_b64encode(self._cipher.encrypt(sequence.to_bytes(_BYTES), None)).decode()

    def open(self, text: str) -> int | None:
        """The place that was told; ``None`` for any other text."""
        try:
            return int.from_bytes(self._cipher.decrypt(urlsafe_b64decode(text.encode()), None))
        except (InvalidTag, ValueError):
            return None
