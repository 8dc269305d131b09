"""The short codes people carry from a machine to the portal, and the long ones machines poll with.

Owns their form, how they are drawn, read and hashed. A user code is short (34 bits), so its hash is keyed:
who reads the database cannot try all codes against it. Must not know storage.
"""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
"""No vowels (no words), no digits, nothing that looks like another: RFC 8628, section 6.1."""
LENGTH = 8

_DEVICE_CODE_BYTES = 32
_CONTEXT = b"porten enrollment codes"


def draw_user_code() -> str:
    """A code such as ``BCDF-GHJK``."""
    letters = "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))
    return f"{letters[: LENGTH // 2]}-{letters[LENGTH // 2 :]}"


def draw_device_code() -> str:
    """What a machine polls with: 256 bits, URL-safe."""
    return secrets.token_urlsafe(_DEVICE_CODE_BYTES)


def read_user_code(typed: str) -> str | None:
    """The code's letters however they were typed (case, dashes, spaces), ``None`` for what is no code."""
    letters = "".join(letter for letter in typed.upper() if letter not in "- ")
    is_code = len(letters) == LENGTH and all(letter in ALPHABET for letter in letters)
    return letters if is_code else None


class CodeHasher:
    """Hashes codes under a secret that only this Hub can derive."""

    def __init__(self, hub_key: Ed25519PrivateKey) -> None:
        self._secret = sha256(_CONTEXT + hub_key.private_bytes_raw()).digest()

    def hash(self, code: str) -> str:
        """What is stored in place of a code, in hex."""
        return hmac.new(self._secret, code.encode(), sha256).hexdigest()
