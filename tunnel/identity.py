"""Who a node is and what it may be asked: keys, credentials, tickets, the signature in HELLO.

Owns every signature of the tunnel, all Ed25519. Must not know sockets, the clock (`now` is passed
in, unix seconds) or policies: a ticket is compared with the node's own credential, nothing else.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from typing import Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tunnel import jws
from tunnel.errors import CredentialInvalid, TicketRefused

CREDENTIAL_TYPE = "porten-node+jwt"
TICKET_TYPE = "porten-ticket+jwt"
HELLO_CONTEXT = b"porten-tunnel.v1 hello"
CLOCK_SKEW_S = 30.0  # how far the clocks of Hub and node may disagree about a ticket
MAX_REMEMBERED_TICKETS = 65_536  # replays remembered at once; beyond it the node refuses

Sharing = Literal["private", "organisations", "public"]


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a node dials with; `next_key` is tried first, where the Hub was told of one."""

    node_id: str
    private_key: Ed25519PrivateKey
    next_key: Ed25519PrivateKey | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCredential:
    """What the Hub says of a node, signed. `issued_at` is unix seconds."""

    node_id: str
    owner_id: str
    region: str | None
    trust: str
    sharing: Sharing
    hub_id: str
    public_key: str  # base64url of the node's raw Ed25519 public key
    issued_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """The Hub's signed leave for one request. Times are unix seconds."""

    node_id: str
    owner_id: str
    region: str | None
    organisation_id: str  # of the key that asks
    model: str
    request_id: str
    generation: int
    issued_at: int
    expires_at: int
    key_id: str = ""  # that asks, and its rules as they were judged: for the receipt; empty from older Hubs
    policy_hash: str = ""


def encode_public_key(key: Ed25519PublicKey) -> str:
    """Write a public key as unpadded base64url of its 32 raw bytes."""
    return base64.urlsafe_b64encode(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).rstrip(b"=").decode()


def fingerprint(public_key: str) -> str:
    """Twenty hex digits of a key (as `encode_public_key` writes it) that people compare on two screens."""
    digits = hashlib.sha256(public_key.encode()).hexdigest()[:20]
    return ":".join(digits[start : start + 4] for start in range(0, 20, 4))


def decode_public_key(text: str) -> Ed25519PublicKey:
    """Read what `encode_public_key` wrote.

    Raises:
        CredentialInvalid: not base64url of 32 bytes.
    """
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        return Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error) as error:
        raise CredentialInvalid("not an Ed25519 public key in base64url") from error


def issue_credential(hub_key: Ed25519PrivateKey, credential: NodeCredential) -> str:
    """Sign a credential: a compact JWS of type `porten-node+jwt`."""
    return jws.Signer(hub_key).sign(jws.header_of(CREDENTIAL_TYPE), msgspec.json.encode(credential))


def read_credential(token: str, hub_public_key: Ed25519PublicKey) -> NodeCredential:
    """Verify and read a credential.

    Raises:
        CredentialInvalid: forged, damaged, or another kind of token.
    """
    try:
        payload = jws.Verifier(hub_public_key).read(token, CREDENTIAL_TYPE)
        return msgspec.json.decode(payload, type=NodeCredential)
    except ValueError as error:
        raise CredentialInvalid(f"credential does not verify: {type(error).__name__}") from error


class TicketIssuer:
    """Signs tickets with the Hub's key: compact JWS of type `porten-ticket+jwt`."""

    def __init__(self, hub_key: Ed25519PrivateKey) -> None:
        self._signer = jws.Signer(hub_key)

    def issue(self, ticket: Ticket) -> str:
        """A ticket as it travels."""
        return self._signer.sign(jws.header_of(TICKET_TYPE), msgspec.json.encode(ticket))


class TicketVerifier:
    """The node's own check of every request, against its own credential.

    A Hub that errs (or is made to err) about owner or region is refused here.
    """

    def __init__(self, credential: NodeCredential, hub_public_key: Ed25519PublicKey) -> None:
        self._credential = credential
        self._hub = jws.Verifier(hub_public_key)
        self._seen: dict[str, float] = {}  # request id -> unix time at which its ticket expires

    def renew(self, credential: NodeCredential) -> None:
        """Judge by another credential from now on; a ticket that was seen stays seen."""
        self._credential = credential

    def verify(self, token: str, *, now: float, request_id: str, generation: int) -> Ticket:
        """Check a ticket and remember it against replay.

        Args:
            token: The compact JWS from OPEN.
            now: Unix seconds.
            request_id: The uid of the OPEN it came with.
            generation: The generation of the session it came through.

        Raises:
            TicketRefused: with the first gate that refused.
        """
        try:
            ticket = msgspec.json.decode(self._hub.read(token, TICKET_TYPE), type=Ticket)
        except ValueError as error:
            raise TicketRefused("signature") from error
        gate = self._refusing_gate(ticket, now, request_id, generation)
        if gate is not None:
            raise TicketRefused(gate)
        self._remember(ticket, now)
        return ticket

    def _refusing_gate(self, ticket: Ticket, now: float, request_id: str, generation: int) -> str | None:
        mine = self._credential
        refusals = {
            "expired": not ticket.issued_at - CLOCK_SKEW_S <= now < ticket.expires_at + CLOCK_SKEW_S,
            "node": ticket.node_id != mine.node_id,
            "owner": ticket.owner_id != mine.owner_id,
            "region": ticket.region != mine.region,
            "sharing": mine.sharing == "private" and ticket.organisation_id != mine.owner_id,
            "request": ticket.request_id != request_id,
            "generation": ticket.generation != generation,
        }
        return next((gate for gate, refused in refusals.items() if refused), None)

    def _remember(self, ticket: Ticket, now: float) -> None:
        """Refuse a ticket seen before; forget the expired, which the time check refuses anyway."""
        if ticket.request_id in self._seen:
            raise TicketRefused("replay")
        if len(self._seen) >= MAX_REMEMBERED_TICKETS:
            self._seen = {seen: until for seen, until in self._seen.items() if until > now}
            if len(self._seen) >= MAX_REMEMBERED_TICKETS:
                raise TicketRefused("replay")
        self._seen[ticket.request_id] = ticket.expires_at + CLOCK_SKEW_S


def sign_hello(
    key: Ed25519PrivateKey, *, nonce: bytes, hub_host: str, node_id: str, instance_id: str, hello: bytes
) -> bytes:
    """Sign (context, nonce, hub host, node id, instance id, SHA-256 of the HELLO's bytes)."""
    return key.sign(hello_transcript(nonce, hub_host, node_id, instance_id, hello))


def verify_hello(
    keys: tuple[Ed25519PublicKey, ...],
    signature: bytes,
    *,
    nonce: bytes,
    hub_host: str,
    node_id: str,
    instance_id: str,
    hello: bytes,
) -> Ed25519PublicKey | None:
    """Give the one of the node's active keys that made the signature; None where it was none of them."""
    transcript = hello_transcript(nonce, hub_host, node_id, instance_id, hello)
    return next((key for key in keys if _verifies(key, signature, transcript)), None)


def hello_transcript(nonce: bytes, hub_host: str, node_id: str, instance_id: str, hello: bytes) -> bytes:
    """Concatenate the parts, each behind its u16 length, so that no two inputs read the same.

    The HELLO is hashed as the bytes that were sent: a field its reader does not know counts too.
    """
    digest = hashlib.sha256(hello).digest()
    parts = (HELLO_CONTEXT, nonce, hub_host.encode(), node_id.encode(), instance_id.encode(), digest)
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _verifies(key: Ed25519PublicKey, signature: bytes, transcript: bytes) -> bool:
    try:
        key.verify(signature, transcript)
    except InvalidSignature:
        return False
    return True
