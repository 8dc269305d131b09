"""Signed checkpoints of the audit log.

Owns their form: a compact JWS (EdDSA, type ``porten-checkpoint+jwt``) over the Hub's id, the sequence and the
hash of an event, the time, and whether the log was pruned up to there. Must not know storage or the clock.
"""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hub.audit import Checkpoint
from hub.errors import CheckpointInvalid
from tunnel import jws

CHECKPOINT_TYPE = "porten-checkpoint+jwt"


def sign_checkpoint(key: Ed25519PrivateKey, checkpoint: Checkpoint) -> str:
    """A checkpoint as it is kept and logged."""
    return jws.Signer(key).sign(jws.header_of(CHECKPOINT_TYPE), msgspec.json.encode(checkpoint))


def says_checkpoint(token: str) -> bool:
    """Whether a text is a token that calls itself a checkpoint; who signed it is not looked at."""
    try:
        return jws.type_of(token) == CHECKPOINT_TYPE
    except jws.NotSigned:
        return False


def read_checkpoint(token: str, *hub_keys: Ed25519PublicKey) -> Checkpoint:
    """Verify and read a checkpoint that one of these keys signed. It is never too old.

    Raises:
        CheckpointInvalid: none of them did, or it is something else.
    """
    for key in hub_keys:
        try:
            payload = jws.Verifier(key).read(token, CHECKPOINT_TYPE)
            return msgspec.json.decode(payload, type=Checkpoint)
        except jws.NotSigned as error:
            if not error.forged:
                raise CheckpointInvalid("it is no checkpoint") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CheckpointInvalid("it is no checkpoint") from error
    raise CheckpointInvalid("no Hub's key that is trusted here signed it")
