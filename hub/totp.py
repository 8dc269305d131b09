"""One-time codes by time (RFC 6238), recovery codes, and how their secrets are kept.

Owns the numbers (six digits, 30 seconds, SHA-1: what every authenticator app knows), which step a code
belongs to, and the encryption of a secret at rest. Time is an argument. Must not know accounts' storage,
forms or limits on guessing.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b32encode, urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.twofactor.totp import TOTP

DIGITS = 6
STEP_S = 30
DRIFT_STEPS = 1
"""How many steps a phone's clock may be off."""

RECOVERY_CODES = 10

_SECRET_BYTES = 20  # as RFC 4226 recommends: the length of the hash
_NONCE_BYTES = 12
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # no 0, 1, i, l, o: they are copied by hand
_RECOVERY_CHARACTERS = 10  # of 31 each: 49 bits, behind a limit on guessing


@dataclass(frozen=True, slots=True)
class Keys:
    """What secrets are sealed with and recovery codes hashed with: 32 bytes each, of the Hub's own key."""

    sealing: bytes = field(repr=False)
    hashing: bytes = field(repr=False)


def new_secret() -> bytes:
    """A fresh shared secret, 160 bits of chance."""
    return secrets.token_bytes(_SECRET_BYTES)


def secret_text(secret: bytes) -> str:
    """A secret as it is typed into an app: base32 in groups of four."""
    text = b32encode(secret).decode().rstrip("=")
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def provisioning_uri(secret: bytes, *, account: str, issuer: str) -> str:
    """What the picture says to an app: the secret, and what to call it."""
    return _totp(secret).get_provisioning_uri(account, issuer.replace(":", " "))


def matching_step(secret: bytes, code: str, *, now: float, last_step: int) -> int | None:
    """The time step that a code belongs to: one off at most, and later than the last one taken.

    Args:
        secret: the shared secret.
        code: as typed; spaces do not count.
        now: UTC seconds since the epoch.
        last_step: the step of the last code taken. None up to it is taken again (RFC 6238, 5.2).

    Returns:
        The step; ``None`` where the code belongs to none that counts.
    """
    typed = "".join(code.split())
    if len(typed) != DIGITS or not (typed.isascii() and typed.isdigit()):
        return None
    current = int(now // STEP_S)
    found = None
    for step in range(current - DRIFT_STEPS, current + DRIFT_STEPS + 1):
        right = hmac.compare_digest(_totp(secret).generate(step * STEP_S), typed.encode())
        if right and step > last_step:
            found = step
    return found


def new_recovery_codes() -> list[str]:
    """Ten codes, each for one time that the phone is not at hand."""
    return [_recovery_code() for _ in range(RECOVERY_CODES)]


def looks_like_recovery(code: str) -> bool:
    """Whether a typed code could be a recovery code rather than one of an app."""
    return len(_plain(code)) == _RECOVERY_CHARACTERS


def hash_recovery(keys: Keys, account_id: str, code: str) -> str:
    """What is stored in place of a recovery code: keyed, so that a stolen database gives no way to guess."""
    said = f"{account_id}\0{_plain(code)}".encode()
    return hmac.new(keys.hashing, said, sha256).hexdigest()


def seal(keys: Keys, account_id: str, secret: bytes) -> str:
    """Encrypt a secret (AES-256-GCM), bound to its account: moved to another one it cannot be opened."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return urlsafe_b64encode(
        nonce + AESGCM(keys.sealing).encrypt(nonce, secret, account_id.encode())
    ).decode()


def unseal(keys: Keys, account_id: str, sealed: str) -> bytes | None:
    """The secret again; ``None`` where it was sealed with another key or for another account, or damaged."""
    try:
        raw = urlsafe_b64decode(sealed)
        return AESGCM(keys.sealing).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], account_id.encode())
    except (InvalidTag, ValueError):
        return None


def _totp(secret: bytes) -> TOTP:
    return TOTP(secret, DIGITS, SHA1(), STEP_S)  # noqa: S303 - RFC 6238's; HMAC does not rest on collisions


def _recovery_code() -> str:
    letters = "".join(secrets.choice(_ALPHABET) for _ in range(_RECOVERY_CHARACTERS))
    return f"{letters[:5]}-{letters[5:]}"


def _plain(code: str) -> str:
    return "".join(letter for letter in code.lower() if letter.isalnum())
