"""What the node asks of its Hub in its own name, signed by its key; the Hub's side is the same words.

Owns the form of those tokens. Must not know how they travel; the time is an argument.
"""

import secrets

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from runtime.identity import HubFacts
from tunnel.identity import encode_public_key

LEAVE_TYPE = "porten-leave+jwt"
ROTATE_TYPE = "porten-rotate+jwt"
LIFETIME_S = 60


def leave_token(hub: HubFacts, key: Ed25519PrivateKey, *, now: float) -> str:
    """The node's own signed word that it leaves; good for a minute."""
    return _sign(hub, key, LEAVE_TYPE, now)


def rotate_token(hub: HubFacts, key: Ed25519PrivateKey, next_key: Ed25519PublicKey, *, now: float) -> str:
    """The node's own signed word that it goes over to another key; good for a minute."""
    return _sign(hub, key, ROTATE_TYPE, now, public_key=encode_public_key(next_key))


def _sign(hub: HubFacts, key: Ed25519PrivateKey, kind: str, now: float, **more: str) -> str:
    claims = {
        "sub": hub.node_id,
        "aud": hub.hub_id,
        "iat": int(now),
        "exp": int(now) + LIFETIME_S,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims | more, key, algorithm="EdDSA", headers={"typ": kind})
