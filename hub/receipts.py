"""Receipts on the Hub: which policy they name, and that a node's word agrees with what the Hub knows.

Owns the canonical form of a policy with its hash, and the rule by which a receipt is passed on or refuses the
answer. Must not know HTTP servers or storage; the time is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.heads import DIGEST_HEADER, header
from hub.policy import Policy
from tunnel.errors import ReceiptInvalid
from tunnel.identity import Ticket
from tunnel.messages import Head
from tunnel.receipts import FEATURE, RECEIPT_HEADER, Receipt, ReceiptReader

POLICY_VERSION = 1
CLOCK_TOLERANCE_S = 120.0
"""Seconds by which a receipt's time may differ from the Hub's: what a ticket already lets clocks differ."""


def policy_document(policy: Policy, models: Collection[str] | None) -> str:
    """A key's rules in their one canonical form: JSON by RFC 8785, its lists sorted by code point.

    Args:
        policy: what is judged of nodes.
        models: the key's own list, ``None`` where every model is allowed.
    """
    document = {
        "version": POLICY_VERSION,
        "organisation": policy.organisation_id,
        "fleet": policy.fleet.value,
        "regions": sorted(policy.regions),
        "minimum_trust": policy.minimum_trust.label,
        "models": None if models is None else sorted(models),
    }
    # With these keys and types, JSON written this way is RFC 8785's: the only number is a small whole one.
    return json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def policy_hash(policy: Policy | None, models: Collection[str] | None) -> str:
    """The name of a key's rules in tickets and receipts: ``v1:`` and the SHA-256 of their document in hex.

    Empty where there are no rules that can be read; nothing is dispatched then.
    """
    if policy is None:
        return ""
    digest = sha256(policy_document(policy, models).encode()).hexdigest()
    return f"v{POLICY_VERSION}:{digest}"


class ReceiptCheck:
    """Lets receipts through that are true as far as the Hub can tell."""

    def __init__(self, hub_key: Ed25519PublicKey) -> None:
        """Believe credentials that this key signed."""
        self._reader = ReceiptReader(hub_key)

    def receipt_of(self, head: Head, ticket: Ticket, features: Collection[str], now: float) -> str | None:
        """The receipt at the head of an answer.

        Args:
            head: of a successful answer.
            ticket: what the node was sent.
            features: what the node said in HELLO that it does.
            now: UTC seconds since the epoch.

        Returns:
            The receipt as it came; ``None`` from a node of an older version, which sends none.

        Raises:
            ReceiptInvalid: it is missing though the node sends them, does not verify, or says other than the
                Hub knows.
        """
        token = header(head, RECEIPT_HEADER)
        if token is None:
            if FEATURE in features:
                raise ReceiptInvalid("it is missing")
            return None
        found = self._reader.read(token).receipt
        if abs(found.issued_at - now) > CLOCK_TOLERANCE_S:
            raise ReceiptInvalid("it is of another time")
        if found != _expected(ticket, header(head, DIGEST_HEADER), found.issued_at):
            raise ReceiptInvalid("it says other than the Hub knows")
        return token


def _expected(ticket: Ticket, digest: str | None, issued_at: int) -> Receipt:
    return Receipt(
        request_id=ticket.request_id,
        key_id=ticket.key_id,
        policy_hash=ticket.policy_hash,
        node_id=ticket.node_id,
        owner_id=ticket.owner_id,
        region=ticket.region,
        model=ticket.model,
        model_digest=digest,
        issued_at=issued_at,
    )
