"""Identifiers and names of the Hub's things.

Owns how they look: an identifier is a prefix that says the kind, then 20 characters of chance; a name is
what a person typed, cleaned. Knows nothing of what they name.
"""

from __future__ import annotations

import secrets
from base64 import b32encode
from typing import Literal

from hub.errors import InvalidInput

Kind = Literal["org", "acct", "node", "key", "req", "hub", "enr", "jt", "psd", "atk"]

NAME_LIMIT = 100

_LENGTH = 20
_BYTES = 13  # 13 bytes give 21 base32 characters: 100 bits survive the cut to 20


def new_id(kind: Kind) -> str:
    """A fresh identifier such as ``node_4kf0…``, 100 bits of chance, safe in URLs and file names."""
    return f"{kind}_{b32encode(secrets.token_bytes(_BYTES)).decode().lower()[:_LENGTH]}"


def checked_name(name: str, field_name: str = "name") -> str:
    """A name fit to be stored and shown: stripped, printable, 1 to 100 characters.

    Raises:
        InvalidInput: it is not.
    """
    name = name.strip()
    if not name:
        raise InvalidInput(field_name, "must not be empty")
    if len(name) > NAME_LIMIT:
        raise InvalidInput(field_name, f"must have at most {NAME_LIMIT} characters")
    if not name.isprintable():
        raise InvalidInput(field_name, "must have only printable characters")
    return name
