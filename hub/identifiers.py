"""Identifiers and names of the Hub's things.

Owns how they look: an identifier is a prefix that says the kind, then 20 characters of chance; a name is
what a person typed, cleaned. Knows nothing of what they name.
"""

from __future__ import annotations

import secrets
from typing import Literal

from hub.errors import InvalidInput

Kind = Literal["org", "acct", "node", "key", "req", "hub", "enr", "jt", "inv", "psd", "atk"]

NAME_LIMIT = 100

_LENGTH = 20  # characters of five bits each: 100 bits of chance
_CHARACTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""A character for each value of a byte, each as often as any other."""


def new_id(kind: Kind) -> str:
    """A fresh identifier such as ``node_4kf0…``, 100 bits of chance, safe in URLs and file names."""
    return f"{kind}_{secrets.token_bytes(_LENGTH).translate(_CHARACTERS).decode()}"


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
