"""The Hub's own key: what signs credentials and tickets.

Owns its file: PEM (PKCS 8), mode 0600, made once and never overwritten. Whoever holds it is the Hub.
"""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from hub.errors import HubKeyLost, NotInitialised


def create_hub_key(path: Path) -> Ed25519PrivateKey:
    """Make the key and its file.

    Raises:
        FileExistsError: there is a key already.
    """
    key = Ed25519PrivateKey.generate()
    write_hub_key(path, key)
    return key


def pem_of(key: Ed25519PrivateKey) -> bytes:
    """The key as its file holds it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_hub_key(path: Path, key: Ed25519PrivateKey) -> None:
    """Write the key's file.

    The file is written under another name and linked into place, so that a crash leaves no half of a key and
    two commands at the same moment leave one.

    Raises:
        FileExistsError: there is a key already.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem_of(key))
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()


def load_hub_key(path: Path, database: Path | None = None) -> Ed25519PrivateKey:
    """Read the key. ``database`` is the Hub's, where it has one in a file.

    Raises:
        NotInitialised: there is none, it is readable by others, or it is not an Ed25519 key.
        HubKeyLost: there is none, and yet a database.
    """
    try:
        mode = path.stat().st_mode
        pem = path.read_bytes()
    except OSError as error:
        if database is not None and database.exists() and not path.exists():
            raise HubKeyLost(path) from error
        raise NotInitialised(f"there is no Hub in {path.parent}: run `porten-hub init` first") from error
    if mode & 0o077:
        raise NotInitialised(f"{path} can be read by others: run `chmod 600 {path}`")
    if (key := parse_hub_key(pem)) is None:
        raise NotInitialised(f"{path} holds no Ed25519 key")
    return key


def derived_secret(key: Ed25519PrivateKey, purpose: str) -> bytes:
    """32 bytes that only holders of the Hub's key can know, others for each purpose (HKDF, RFC 5869)."""
    derive = HKDF(SHA256(), length=32, salt=None, info=f"porten {purpose}".encode())
    return derive.derive(key.private_bytes_raw())


def parse_hub_key(pem: bytes) -> Ed25519PrivateKey | None:
    """Read what :func:`pem_of` wrote; None for anything else."""
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError:
        return None
    return key if isinstance(key, Ed25519PrivateKey) else None
