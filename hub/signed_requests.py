"""What a node asks in its own name, signed by its key: to be forgotten, or to go over to another key.

Owns the form of those tokens and their checks. Must not know storage; the time is an argument.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.types import Options

from hub.errors import SignatureRefused

_NODE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

LIFETIME_S = 60
CLOCK_SKEW_S = 30.0

_CLAIMS = ["sub", "aud", "iat", "exp"]


class Asked(StrEnum):
    """What for: the type of the token, so that one is never taken for another."""

    LEAVE = "porten-leave+jwt"
    ROTATE = "porten-rotate+jwt"


def claimed_node(token: str, asked: Asked) -> str:
    """Who the token says it is from; nothing is verified yet.

    Raises:
        SignatureRefused: the text is no such token.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        if jwt.get_unverified_header(token).get("typ") != asked.value:
            raise SignatureRefused(f"not a {asked.name.lower()} request")
    except jwt.PyJWTError as error:
        raise SignatureRefused(f"not a {asked.name.lower()} request") from error
    node_id = str(claims.get("sub", ""))
    if not _NODE_ID.fullmatch(node_id):
        raise SignatureRefused("no such node")
    return node_id


def verify(token: str, key: Ed25519PublicKey, *, hub_id: str, now: float) -> Mapping[str, Any]:
    """Check signature, audience and age.

    Args:
        token: the compact JWS; `claimed_node` has looked at its type.
        key: the key of the node it claims to be from.
        hub_id: the audience it must name.
        now: UTC seconds since the epoch.

    Returns:
        What it claims.

    Raises:
        SignatureRefused: one of them does not hold.
    """
    # The library would look at its own clock; ours is an argument, so times are checked below.
    options: Options = {"verify_exp": False, "verify_iat": False, "require": _CLAIMS}
    try:
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=hub_id, options=options)
        issued, expires = float(claims["iat"]), float(claims["exp"])
    except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as error:
        raise SignatureRefused("the request does not verify") from error
    if expires - issued > LIFETIME_S or not issued - CLOCK_SKEW_S <= now < expires + CLOCK_SKEW_S:
        raise SignatureRefused("the request is too old, or the clocks disagree")
    return claims
