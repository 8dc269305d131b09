"""Signed checkpoints of the audit log.

Owns their form: a compact JWS (EdDSA, type ``porten-checkpoint+jwt``) over the Hub's id, the sequence and the
hash of an event, the time, and whether the log was pruned up to there. Must not know storage or the clock.
"""

from __future__ import annotations

from dataclasses import asdict

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.types import Options

from hub.audit import Checkpoint
from hub.errors import CheckpointInvalid

CHECKPOINT_TYPE = "porten-checkpoint+jwt"


def sign_checkpoint(key: Ed25519PrivateKey, checkpoint: Checkpoint) -> str:
    """A checkpoint as it is kept and logged."""
    return jwt.encode(asdict(checkpoint), key, algorithm="EdDSA", headers={"typ": CHECKPOINT_TYPE})


def says_checkpoint(token: str) -> bool:
    """Whether a text is a token that calls itself a checkpoint; who signed it is not looked at."""
    try:
        return jwt.get_unverified_header(token).get("typ") == CHECKPOINT_TYPE
    except (jwt.PyJWTError, ValueError):
        return False


def read_checkpoint(token: str, *hub_keys: Ed25519PublicKey) -> Checkpoint:
    """Verify and read a checkpoint that one of these keys signed.

    Raises:
        CheckpointInvalid: none of them did, or it is something else.
    """
    # A checkpoint is never too old: nothing of its times is the library's to judge.
    options: Options = {"verify_exp": False, "verify_iat": False, "verify_nbf": False, "verify_aud": False}
    for key in hub_keys:
        try:
            read = jwt.decode_complete(token, key, algorithms=["EdDSA"], options=options)
        except jwt.InvalidSignatureError:
            continue
        except (jwt.PyJWTError, ValueError) as error:
            raise CheckpointInvalid("it is no checkpoint") from error
        if read["header"].get("typ") != CHECKPOINT_TYPE:
            raise CheckpointInvalid("it is no checkpoint")
        try:
            return msgspec.convert(read["payload"], Checkpoint)
        except msgspec.ValidationError as error:
            raise CheckpointInvalid("it is no checkpoint") from error
    raise CheckpointInvalid("no Hub's key that is trusted here signed it")
