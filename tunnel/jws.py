"""Compact JWS (RFC 7515) over Ed25519 (RFC 8037), as the Hub and its nodes sign for each other.

Owns the form, and nothing of what is signed. For each request two signatures are made and two are checked: so
the protected header is written once for all tokens of a kind and read once, and libsodium does the rest, in
half of OpenSSL's time. PyJWT reads and writes the same form.
"""

import base64
import binascii
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey


class NotSigned(ValueError):
    """A token that is none, or that the key did not sign. ``forged`` tells the two apart."""

    def __init__(self, reason: str, *, forged: bool = False) -> None:
        super().__init__(reason)
        self.forged = forged


@dataclass(frozen=True, slots=True)
class Parts:
    """A token taken apart: the header as it is written, the payload's bytes, what was signed and by what."""

    header: str
    payload: bytes
    signed: bytes
    signature: bytes


class _Header(msgspec.Struct, frozen=True):
    """What is read of a protected header. ``crit`` would change what the rest means: RFC 7515, 4.1.11."""

    alg: Literal["EdDSA"]
    typ: str
    crit: msgspec.UnsetType = msgspec.UNSET


def written_header(fields: msgspec.Struct | dict[str, str]) -> bytes:
    """A protected header as it begins a token."""
    return encode(msgspec.json.encode(fields))


@lru_cache(maxsize=64)
def header_of(kind: str) -> bytes:
    """The protected header of tokens of a type that carry nothing more in it."""
    return written_header({"alg": "EdDSA", "typ": kind})


class Signer:
    """Signs tokens with one key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = SigningKey(key.private_bytes_raw())

    def sign(self, header: bytes, payload: bytes) -> str:
        """A token; `header` is a `written_header`."""
        signed = header + b"." + encode(payload)
        return (signed + b"." + encode(self._key.sign(signed).signature)).decode("ascii")


class Verifier:
    """Checks what one key signed."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = VerifyKey(key.public_bytes_raw())

    def check(self, parts: Parts) -> bytes:
        """The payload, once the key is known to have signed it.

        Raises:
            NotSigned: it has not.
        """
        try:
            self._key.verify(parts.signed, parts.signature)
        except (BadSignatureError, ValueError):  # the latter for a signature of another length
            raise NotSigned("the key did not sign it", forged=True) from None
        return parts.payload

    def read(self, token: str, kind: str) -> bytes:
        """The payload of a token of exactly this type that the key signed.

        Raises:
            NotSigned: it is something else.
        """
        parts = take_apart(token)
        if _type_of(parts.header) != kind:
            raise NotSigned(f"a token of another type than {kind}")
        return self.check(parts)


def take_apart(token: str) -> Parts:
    """The parts of a token, with nothing checked but their form.

    Raises:
        NotSigned: there are not three of them, in base64url.
    """
    if not token.isascii():
        raise NotSigned("it is no token")
    signed, _, signature = token.rpartition(".")
    header, _, payload = signed.partition(".")
    return Parts(header, decode(payload), signed.encode("ascii"), decode(signature))


def type_of(token: str) -> str:
    """What a token says that it is; nobody's signature is looked at.

    Raises:
        NotSigned: it has not the form of one.
    """
    return _type_of(take_apart(token).header)


@lru_cache(maxsize=64)
def _type_of(header: str) -> str:
    try:
        return msgspec.json.decode(decode(header), type=_Header).typ
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NotSigned("its header is not one of ours") from None


def encode(data: bytes) -> bytes:
    """Unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def decode(text: str) -> bytes:
    """Read unpadded base64url, and nothing that merely resembles it.

    Raises:
        NotSigned: it is something else.
    """
    try:
        written = text.encode("ascii")
        data = base64.b64decode(written + b"=" * (-len(written) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise NotSigned("it is not base64url") from None
    if encode(data) != written:  # bits that no byte has are no second way to write the same
        raise NotSigned("it is not base64url")
    return data
