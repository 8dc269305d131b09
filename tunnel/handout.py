"""The Hub's signed word on the program that it hands out to machines.

Owns the form, its signing and its reading: a compact JWS (EdDSA, type ``porten-program+jwt``) over a
`Handout`. A node has pinned its Hub's key when it enrolled, so that whoever stands between the two can give
it no other program. Must not know HTTP, nor how a program is installed.
"""

import re
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tunnel import jws
from tunnel.errors import HandoutInvalid

HANDOUT_TYPE: Final = "porten-program+jwt"
_FILE = re.compile(r"porten-[0-9A-Za-z.!+]{1,64}-py3-none-any\.whl", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class Handout(msgspec.Struct, frozen=True, kw_only=True):
    """What the Hub signs.

    Attributes:
        hub_id: the Hub that hands it out.
        version: of the program, as PEP 440 has it.
        file: name of the wheel, which is handed out at ``/install/<file>``.
        size: of the wheel, in bytes.
        sha256: of the wheel, in lowercase hexadecimal.
    """

    hub_id: str
    version: str
    file: str
    size: int
    sha256: str


def sign_handout(key: Ed25519PrivateKey, handout: Handout) -> str:
    """The word as it is handed out."""
    return jws.Signer(key).sign(jws.header_of(HANDOUT_TYPE), msgspec.json.encode(handout))


def read_handout(token: str, hub_key: Ed25519PublicKey) -> Handout:
    """Verify and read what a Hub says; the file's name leads out of no folder.

    Raises:
        HandoutInvalid: the key did not sign it, or it is something else.
    """
    try:
        payload = jws.Verifier(hub_key).read(token, HANDOUT_TYPE)
        found = msgspec.json.decode(payload, type=Handout)
    except (jws.NotSigned, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HandoutInvalid(str(error)) from error
    if not _FILE.fullmatch(found.file) or not _DIGEST.fullmatch(found.sha256) or found.size < 1:
        raise HandoutInvalid("it names no wheel of the program")
    return found
