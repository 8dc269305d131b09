"""What storage hands out: frozen records that speak the domain.

Owns their fields and how stored text becomes what the policy judges. Must not know SQL. Times are UTC seconds
since the epoch, as floats, everywhere in the Hub. Text that cannot be read becomes the value that refuses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from hub.permissions import Role as Role  # noqa: PLC0414 - a field of records, had from here
from hub.policy import NodeFacts, Policy, RegionAuthority, Sharing, TrustClass, read_policy
from hub.quotas import UNLIMITED, Allowance

NO_PASSWORD = "-"  # noqa: S105 - no hash is like it, so none matches it
"""Stands in place of a password's hash where there is no password."""


class Authority(Protocol):
    """Who decides, as the rules about deciding need to know it: an account, or an admin token."""

    @property
    def id(self) -> str:
        """What the audit log names it by."""

    @property
    def organisation_id(self) -> str:
        """Where it belongs."""

    @property
    def role(self) -> Role:
        """What it may do."""

    @property
    def is_operator(self) -> bool:
        """Whether it speaks for the whole Hub."""


@dataclass(frozen=True, slots=True)
class Organisation:
    """Who owns nodes and keys. ``limits`` is an operator's ceiling over all of its keys together."""

    id: str
    name: str
    created_at: float
    limits: Allowance = UNLIMITED


@dataclass(frozen=True, slots=True)
class Account:
    """A person, member of one organisation."""

    id: str
    organisation_id: str
    email: str
    password_hash: str = field(repr=False)
    role: Role
    created_at: float

    @property
    def has_password(self) -> bool:
        """Whether there is a password to sign in with; whoever came from an identity provider has none."""
        return self.password_hash != NO_PASSWORD

    @property
    def is_operator(self) -> bool:
        """The account speaks for the whole Hub."""
        return self.role is Role.OPERATOR


@dataclass(frozen=True, slots=True)
class AdminToken:
    """Leave for a program to administer an organisation. Its secret is known to nobody but its holder."""

    id: str
    organisation_id: str
    name: str
    prefix: str
    role: Role
    created_at: float
    expires_at: float
    revoked_at: float | None = None
    last_used_at: float | None = None

    @property
    def is_operator(self) -> bool:
        """The token speaks for the whole Hub."""
        return self.role is Role.OPERATOR

    def is_active(self, now: float) -> bool:
        """Neither revoked nor expired at ``now``."""
        return self.revoked_at is None and now < self.expires_at


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key as stored: its secret is known to nobody but its holder.

    ``fleet``, ``regions`` and ``minimum_trust`` are stored text, for showing; only :attr:`policy` decides.
    ``models`` is ``None`` where every model is allowed. ``ceiling`` are its organisation's limits, filled in
    where a request is to be judged. After a rotation the secret before, ``previous_…``, works for a while
    yet.
    """

    id: str
    organisation_id: str
    name: str
    prefix: str
    hash: str = field(repr=False)
    fleet: str
    regions: frozenset[str]
    minimum_trust: str
    models: frozenset[str] | None
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    limits: Allowance = UNLIMITED
    ceiling: Allowance = UNLIMITED
    previous_prefix: str | None = None
    previous_hash: str | None = field(default=None, repr=False)
    previous_expires_at: float | None = None
    previous_used_at: float | None = None

    @property
    def policy(self) -> Policy | None:
        """The access rules, ``None`` (which refuses) where the stored text makes no sense."""
        return read_policy(self.organisation_id, self.fleet, self.regions, self.minimum_trust)

    def is_active(self, now: float) -> bool:
        """Neither revoked nor expired at ``now``."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def admits(self, secret_hash: str, now: float) -> bool:
        """Whether a secret opens the key at ``now``: its own, or the one before it until the overlap ends."""
        if not self.is_active(now):
            return False
        return secret_hash == self.hash or (secret_hash == self.previous_hash and self.has_overlap(now))

    def has_overlap(self, now: float) -> bool:
        """Whether the secret before the last rotation still works."""
        return self.previous_expires_at is not None and now < self.previous_expires_at

    def allows_model(self, model: str) -> bool:
        """Whether the key's own list has the model."""
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Node:
    """An owner's machine as the Hub holds it.

    ``organisation_id`` is its owner. ``region_confirmed`` says that an operator confirmed the region.
    ``machine`` is what the node said about itself at enrollment: shown to people, never judged.
    ``next_public_key`` is the key that the node wants to go over to, worth something until
    ``next_key_expires_at``. ``draining_since`` says since when it is on drain: it gets no new work.
    """

    id: str
    organisation_id: str
    name: str
    public_key: str
    region: str | None
    region_confirmed: bool
    trust: TrustClass | None
    sharing: Sharing | None
    machine: Mapping[str, Any]
    generation: int
    created_at: float
    revoked_at: float | None = None
    last_seen_at: float | None = None
    next_public_key: str | None = None
    next_key_expires_at: float | None = None
    draining_since: float | None = None

    def active_keys(self, now: float) -> tuple[str, ...]:
        """The public keys that the node may prove itself with at ``now``: two while it changes its key."""
        if self.revoked_at is not None:
            return ()
        following, until = self.next_public_key, self.next_key_expires_at
        if following is None or until is None or now >= until:
            return (self.public_key,)
        return (self.public_key, following)

    def facts(self, authority: RegionAuthority = RegionAuthority.OPERATOR) -> NodeFacts:
        """What the policy judges. Under ``owner`` authority the owner's choice of region counts by itself."""
        return NodeFacts(
            node_id=self.id,
            owner_id=self.organisation_id,
            region=self.region,
            region_confirmed=self.region_confirmed or authority is RegionAuthority.OWNER,
            trust=self.trust,
            sharing=self.sharing,
            revoked=self.revoked_at is not None,
            draining=self.draining_since is not None,
        )


@dataclass(frozen=True, slots=True)
class Region:
    """A code of the operator's tree."""

    code: str
    parent: str | None
    name: str


class EnrollmentStatus(StrEnum):
    """Where a device enrollment stands; it only ever moves to the right of ``pending``."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REDEEMED = "redeemed"


@dataclass(frozen=True, slots=True)
class DeviceEnrollment:
    """A machine that asked to be enrolled. The codes are stored as hashes and appear nowhere here."""

    id: str
    public_key: str
    name: str
    machine: Mapping[str, Any]
    address: str
    status: EnrollmentStatus
    interval: float
    created_at: float
    expires_at: float
    last_polled_at: float | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class JoinToken:
    """Leave for a number of machines to enroll without a person."""

    id: str
    organisation_id: str
    name: str
    region: str | None
    region_confirmed: bool
    max_uses: int
    uses: int
    created_at: float
    expires_at: float
    revoked_at: float | None = None

    def is_active(self, now: float) -> bool:
        """Whether it still admits a node at ``now``."""
        return self.revoked_at is None and now < self.expires_at and self.uses < self.max_uses


@dataclass(frozen=True, slots=True)
class PortalSession:
    """A signed-in browser. ``id`` is the SHA-256 of the cookie's value, which is not stored.

    ``address`` and ``browser`` (in plain words) are what its owner tells it by; sessions begun by an older
    version have none.
    """

    id: str = field(repr=False)
    account_id: str
    csrf_token: str = field(repr=False)
    created_at: float
    expires_at: float
    address: str | None = field(default=None, repr=False)
    browser: str | None = None


@dataclass(frozen=True, slots=True)
class Invitation:
    """Leave to become a member, once, with a role that is fixed. ``name`` says for whom it is."""

    id: str
    organisation_id: str
    name: str
    role: Role
    invited_by: str
    created_at: float
    expires_at: float


@dataclass(frozen=True, slots=True)
class SecondStep:
    """What an account's codes at sign-in come from (RFC 6238).

    Attributes:
        account_id: whose.
        sealed_secret: the shared secret, encrypted; see `hub.totp`.
        created_at: when it was drawn.
        confirmed_at: when a code showed that its owner has it; until then it counts for nothing.
        last_step: the time step of the last code that was taken: none up to it is taken again.
    """

    account_id: str
    sealed_secret: str = field(repr=False)
    created_at: float
    confirmed_at: float | None = None
    last_step: int = 0


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One answered request: who, where, how much; never what was said.

    Attributes:
        ttft_ms: milliseconds from the request to the first byte of its answer; ``None`` where there was none.
        duration_ms: milliseconds from the request to the last byte.
        outcome: ``ok`` or the error code the client saw, or ``cancelled``.
        completion_tokens: as the engine counted them. Where it could not say, because the answer was ended
            before its end, the events of the stream that had come by then; prompt and cached tokens are then
            0.
    """

    request_id: str
    key_id: str
    organisation_id: str
    node_id: str
    region: str | None
    model: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    ttft_ms: float | None
    duration_ms: float
    outcome: str
    created_at: float


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage of one group in one span of time.

    Attributes:
        start: UTC seconds since the epoch at which the span begins; ``None`` where all time is one.
        group: the values that it was grouped by, in the order asked for; a node without a region has ``""``.
    """

    start: int | None
    group: tuple[str, ...]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens
