"""A node's own request to be forgotten, signed by its key.

Owns the form of that token and its checks. Must not know storage; the time is an argument.
"""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from jwt.types import Options

from hub.errors import LeaveRefused

LEAVE_TYPE = "porten-leave+jwt"
LEAVE_LIFETIME_S = 60
CLOCK_SKEW_S = 30.0

_CLAIMS = ["sub", "aud", "iat", "exp"]


def claimed_node(token: str) -> str:
    """Who the token says it is from; nothing is verified yet.

    Raises:
        LeaveRefused: the text is no such token.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
        if jwt.get_unverified_header(token).get("typ") != LEAVE_TYPE:
            raise LeaveRefused("not a leave request")
    except jwt.PyJWTError as error:
        raise LeaveRefused("not a leave request") from error
    return str(claims.get("sub", ""))


def verify_leave(token: str, key: Ed25519PublicKey, *, hub_id: str, now: float) -> None:
    """Check signature, audience and age.

    Args:
        token: the compact JWS.
        key: the key of the node it claims to be from.
        hub_id: the audience it must name.
        now: UTC seconds since the epoch.

    Raises:
        LeaveRefused: one of them does not hold.
    """
    # The library would look at its own clock; ours is an argument, so times are checked below.
    options: Options = {"verify_exp": False, "verify_iat": False, "require": _CLAIMS}
    try:
        claims = jwt.decode(token, key, algorithms=["EdDSA"], audience=hub_id, options=options)
        issued, expires = float(claims["iat"]), float(claims["exp"])
    except (jwt.PyJWTError, TypeError, ValueError, OverflowError) as error:
        raise LeaveRefused("the leave request does not verify") from error
    if expires - issued > LEAVE_LIFETIME_S or not issued - CLOCK_SKEW_S <= now < expires + CLOCK_SKEW_S:
        raise LeaveRefused("the leave request is too old, or the clocks disagree")
