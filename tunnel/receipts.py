"""Receipts: a node's own signed word on where one request ran, and under which rules.

Owns their form, their signing on the node and their reading by anybody who has the Hub's public key. A
receipt brings along the credential in which the Hub vouches for the node's key, owner and region, so that it
can be checked offline and outlives a change of the node's key. Must not know HTTP, policies or the clock.

The form is a compact JWS (RFC 7515) over Ed25519 (RFC 8037): the protected header holds ``alg``, ``typ`` and
``credential``, the payload is a `Receipt`.
"""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tunnel import jws
from tunnel.errors import CredentialInvalid, ReceiptInvalid
from tunnel.identity import NodeCredential, decode_public_key, read_credential

RECEIPT_TYPE: Final = "porten-receipt+jwt"
RECEIPT_HEADER = "x-porten-receipt"
FEATURE = "receipts"
"""What a node says in HELLO when it sends a receipt with every answer to a ticket that names a key."""
MAX_RECEIPT_CHARACTERS = 8192
_MAX_HEADS = 4096  # protected headers known at once: one a node and credential


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What a node signs. `issued_at` is the node's own clock, unix seconds, as its answer began.

    `request_id` is the id under which the node was asked: a second node that was tried for the same request
    has `.2` behind it. `key_id` and `policy_hash` are the Hub's, taken from the ticket.
    """

    request_id: str
    key_id: str
    policy_hash: str
    node_id: str
    owner_id: str
    region: str | None
    model: str
    model_digest: str | None
    issued_at: int


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt that holds, the credential that it rests on, and the Hub's key that vouches for that."""

    receipt: Receipt
    credential: NodeCredential
    hub_key: Ed25519PublicKey


class _Head(msgspec.Struct, frozen=True):
    """The protected header. ``crit`` would change what the rest means: RFC 7515, 4.1.11."""

    alg: Literal["EdDSA"]
    typ: Literal["porten-receipt+jwt"]
    credential: str
    crit: msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class _Voucher:
    """A protected header that was looked at: whose key signs, and who says so."""

    credential: NodeCredential
    key: jws.Verifier
    hub_key: Ed25519PublicKey


class ReceiptSigner:
    """Signs as one node under one credential. What is the same in all its receipts is written once."""

    def __init__(self, key: Ed25519PrivateKey, credential: NodeCredential, token: str) -> None:
        """Sign as the node of this credential.

        Args:
            key: the one that the credential names.
            credential: what the Hub says of the node.
            token: the same, as the Hub signed it.
        """
        self.credential = credential
        self._signer = jws.Signer(key)
        self._head = jws.written_header(_Head("EdDSA", RECEIPT_TYPE, token))

    def sign(self, receipt: Receipt) -> str:
        """A receipt as it travels."""
        return self._signer.sign(self._head, msgspec.json.encode(receipt))


_NONE = "it is damaged, or no receipt"
"""What can be said of a text that cannot be read: which of the two it is, nobody knows."""


class ReceiptReader:
    """Reads receipts against one or more Hubs' keys. A credential is verified once, not with each receipt."""

    def __init__(self, *hub_keys: Ed25519PublicKey) -> None:
        self._hub_keys = hub_keys
        self._vouchers: dict[str, _Voucher] = {}

    def read(self, token: str) -> VerifiedReceipt:
        """Verify a receipt.

        Raises:
            ReceiptInvalid: it is forged, damaged or no receipt, or says other than its credential.
        """
        if len(token) > MAX_RECEIPT_CHARACTERS:
            raise ReceiptInvalid(_NONE)
        try:
            parts = jws.take_apart(token)
            voucher = self._vouchers.get(parts.header) or self._vouch(parts.header)
            receipt = msgspec.json.decode(voucher.key.check(parts), type=Receipt)
        except jws.NotSigned as error:
            reason = "the node's key did not sign it" if error.forged else _NONE
            raise ReceiptInvalid(reason) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ReceiptInvalid("what was signed is no receipt") from None
        _check_agreement(receipt, voucher.credential)
        return VerifiedReceipt(receipt, voucher.credential, voucher.hub_key)

    def _vouch(self, head: str) -> _Voucher:
        try:
            token = msgspec.json.decode(jws.decode(head), type=_Head).credential
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ReceiptInvalid(_NONE) from None
        voucher = self._voucher(token)
        if len(self._vouchers) >= _MAX_HEADS:
            self._vouchers.clear()
        self._vouchers[head] = voucher
        return voucher

    def _voucher(self, token: str) -> _Voucher:
        for hub_key in self._hub_keys:
            try:
                credential = read_credential(token, hub_key)
                return _Voucher(credential, jws.Verifier(decode_public_key(credential.public_key)), hub_key)
            except CredentialInvalid:
                continue
        raise ReceiptInvalid("no Hub whose key is trusted here vouches for the node")


def _check_agreement(receipt: Receipt, credential: NodeCredential) -> None:
    said = (receipt.node_id, receipt.owner_id, receipt.region)
    if said != (credential.node_id, credential.owner_id, credential.region):
        raise ReceiptInvalid("it names another node, owner or region than the Hub vouches for")
