"""How a machine becomes a node.

Owns the device flow of RFC 8628 and join tokens. Codes and tokens are stored as hashes only; each is used up
by one UPDATE in :mod:`hub.storage.enrollments`. Must not know HTTP. What happens to a node afterwards is
:mod:`hub.node_keeping`'s.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.attempts import Attempts, Limit
from hub.changes import Changes
from hub.enrollment_answers import (
    Denied,
    DeviceGrant,
    Enrolled,
    Expired,
    NewJoinToken,
    Pending,
    Poll,
    SlowDown,
)
from hub.errors import AlreadyExists, CodeUnknown, InvalidInput, JoinTokenInvalid, TooManyAttempts
from hub.identifiers import checked_name, new_id
from hub.keys import JOIN_TOKEN_PREFIX, hash_secret, looks_valid, mint
from hub.machines import checked_machine, checked_public_key, new_node, suggested_name
from hub.node_keeping import NodeKeeper
from hub.placement import Placement, require_manager
from hub.policy import PRIVATE, Sharing, TrustClass
from hub.storage.records import Authority, DeviceEnrollment, EnrollmentStatus, Node
from hub.storage.repositories import Storage
from hub.user_codes import CodeHasher, draw_device_code, draw_user_code, read_user_code

__all__ = [
    "Denied",
    "DeviceGrant",
    "Enrolled",
    "EnrollmentService",
    "Expired",
    "NewJoinToken",
    "Pending",
    "Poll",
    "SlowDown",
]

CODE_LIFETIME_S = 600.0
POLL_INTERVAL_S = 5.0
SLOW_DOWN_S = 5.0
"""What each poll that comes too early adds to the interval: RFC 8628, section 3.5."""
MAX_JOIN_USES = 10_000
MAX_JOIN_LIFETIME_S = 366 * 86_400.0

_POLL_TOLERANCE_S = 0.5  # a device that sleeps its interval may arrive a little early by our clock
_MAX_PENDING_PER_ADDRESS = 20
_PENDING_RETRY_S = 60.0
_CODE_GUESSES = Limit(attempts=10, window_s=600)  # of 25.6 billion codes
_TOKEN_GUESSES = Limit(attempts=20, window_s=600)


Used = TypeVar("Used")


class EnrollmentService(NodeKeeper):
    """Enrollment, and with it everything that changes a node.

    Args:
        storage: where it is kept.
        hub_key: signs credentials.
        hub_id: this Hub's identifier, written into credentials.
        clock: UTC seconds since the epoch.
        changes: told of every node that was made, changed or revoked.
    """

    def __init__(
        self,
        storage: Storage,
        hub_key: Ed25519PrivateKey,
        hub_id: str,
        clock: Callable[[], float],
        changes: Changes,
    ) -> None:
        super().__init__(storage, hub_key, hub_id, clock, changes)
        self._codes = CodeHasher(hub_key)
        self._code_guesses = Attempts(_CODE_GUESSES)
        self._token_guesses = Attempts(_TOKEN_GUESSES)

    async def start_device(
        self, public_key: str, name: str, machine: Mapping[str, Any], address: str
    ) -> DeviceGrant:
        """Let a machine ask to be enrolled.

        Args:
            public_key: its own Ed25519 key, base64url of the raw bytes.
            name: what it would like to be called.
            machine: what it says about itself, shown to whoever approves.
            address: where it asks from, shown as well.

        Raises:
            InvalidInput: the key is not one, or the description is too long.
            TooManyAttempts: too many machines wait that asked from this address.
        """
        now = self._clock()
        pending = await self._storage.enrollments.count_pending(address, now=now)
        if pending >= _MAX_PENDING_PER_ADDRESS:
            raise TooManyAttempts(_PENDING_RETRY_S)
        enrollment = DeviceEnrollment(
            id=new_id("enr"),
            public_key=checked_public_key(public_key),
            name=suggested_name(name),
            machine=checked_machine(machine),
            address=address,
            status=EnrollmentStatus.PENDING,
            interval=POLL_INTERVAL_S,
            created_at=now,
            expires_at=now + CODE_LIFETIME_S,
        )
        return await self._grant(enrollment)

    async def find_by_user_code(self, user_code: str, address: str) -> DeviceEnrollment:
        """The machine that waits under a code, however it was typed.

        Args:
            user_code: as typed.
            address: where it is typed; wrong ones are counted against it.

        Raises:
            CodeUnknown: none waits.
            TooManyAttempts: too many wrong codes from there.
        """
        subject, now = f"address {address}", self._clock()
        self._code_guesses.spend(subject, now=now)
        code = read_user_code(user_code)
        found = code and await self._storage.enrollments.waiting(self._codes.hash(code), now=now)
        if not found:
            raise CodeUnknown
        self._code_guesses.refund(subject)
        return found

    async def approve(
        self,
        user_code: str,
        account: Authority,
        *,
        name: str,
        region: str | None,
        trust: TrustClass = TrustClass.COMMUNITY,
        sharing: Sharing = PRIVATE,
    ) -> Node:
        """Make the waiting machine a node of the account's organisation. Only the first approval counts.

        Raises:
            NotAllowed: the account's role does not reach this far.
            InvalidInput: a field cannot be accepted.
            CodeUnknown: no machine waits under this code (any more).
            TooManyAttempts: too many wrong codes by this account.
        """
        require_manager(account)
        asked = Placement(name, region, region_confirmed=False, trust=trust, sharing=sharing)
        decided = await self._decided(account, asked, None)
        node = new_node(account.organisation_id, decided, now=self._clock())
        made = await self._with_code(
            user_code, account, lambda code, now: self._storage.enrollments.approve(code, node, now=now)
        )
        if made is None:
            raise CodeUnknown
        self._announce("enrollment.approved", made)
        return made

    async def deny(self, user_code: str, account: Authority) -> None:
        """Refuse the waiting machine.

        Raises:
            NotAllowed: the account's role does not reach this far.
            CodeUnknown: no machine waits under this code (any more).
            TooManyAttempts: too many wrong codes by this account.
        """
        require_manager(account)
        denied = await self._with_code(
            user_code, account, lambda code, now: self._storage.enrollments.deny(code, now=now)
        )
        if not denied:
            raise CodeUnknown

    async def poll(self, device_code: str) -> Poll:
        """Answer a machine that asks whether somebody decided. The credential is handed out once."""
        enrollment = await self._storage.enrollments.by_device_code(self._codes.hash(device_code))
        now = self._clock()
        if (
            enrollment is None
            or enrollment.status is EnrollmentStatus.REDEEMED
            or now >= enrollment.expires_at
        ):
            return Expired()
        if enrollment.status is EnrollmentStatus.DENIED:
            return Denied()
        if (early := await self._paced(enrollment, now)) is not None:
            return early
        if enrollment.status is EnrollmentStatus.PENDING:
            return Pending(enrollment.interval)
        return await self._redeem(enrollment)

    async def create_join_token(
        self,
        organisation_id: str,
        *,
        region: str | None,
        uses: int = 1,
        expires_in_s: float = 86_400.0,
        name: str = "join token",
        region_confirmed: bool = False,
    ) -> NewJoinToken:
        """Make a token with which machines enroll by themselves.

        Args:
            organisation_id: whose nodes they become.
            region: where they stand; ``None`` for nowhere in particular.
            uses: how many machines, at most.
            expires_in_s: seconds until it ends.
            name: what people call it.
            region_confirmed: an operator makes this token, so its region counts.

        Raises:
            InvalidInput: a field cannot be accepted.
        """
        if not 1 <= uses <= MAX_JOIN_USES:
            raise InvalidInput("uses", f"must be from 1 to {MAX_JOIN_USES}")
        if not 0 < expires_in_s <= MAX_JOIN_LIFETIME_S:
            raise InvalidInput("expires", "must be within a year")
        if region is not None and region not in await self._storage.regions.tree():
            raise InvalidInput("region", f"there is no region {region!r} on this Hub")
        minted, now = mint(JOIN_TOKEN_PREFIX), self._clock()
        token = await self._storage.join_tokens.create(
            organisation_id,
            name=checked_name(name),
            token_hash=minted.hash,
            region=region,
            region_confirmed=region_confirmed and region is not None,
            max_uses=uses,
            expires_at=now + expires_in_s,
            now=now,
        )
        return NewJoinToken(token=token, secret=minted.secret)

    async def join(
        self, join_token: str, public_key: str, name: str, machine: Mapping[str, Any], address: str
    ) -> Enrolled:
        """Enroll a machine that comes with a token; it counts as used in the same transaction.

        Raises:
            JoinTokenInvalid: the token admits nobody (any more).
            InvalidInput: the key is not one, or the description is too long.
            TooManyAttempts: too many wrong tokens from this address.
        """
        now, subject = self._clock(), f"address {address}"
        self._token_guesses.spend(subject, now=now)
        placement = Placement(
            suggested_name(name),
            region=None,
            region_confirmed=False,
            trust=TrustClass.COMMUNITY,
            sharing=PRIVATE,
        )
        node = new_node("", placement, now=now, public_key=public_key, machine=machine)
        joined = None
        if looks_valid(join_token, JOIN_TOKEN_PREFIX):
            joined = await self._storage.enrollments.join(hash_secret(join_token), node, now=now)
        if joined is None:
            raise JoinTokenInvalid
        self._token_guesses.refund(subject)
        self._announce("enrollment.joined", joined)
        return Enrolled(joined, self.credential_for(joined))

    async def _grant(self, enrollment: DeviceEnrollment) -> DeviceGrant:
        device_code = draw_device_code()
        while True:  # until the user code is free, which the first of 25.6 billion all but surely is
            user_code = draw_user_code()
            try:
                await self._storage.enrollments.create(
                    enrollment,
                    device_code_hash=self._codes.hash(device_code),
                    user_code_hash=self._codes.hash(user_code.replace("-", "")),
                )
            except AlreadyExists:
                continue
            return DeviceGrant(device_code, user_code, CODE_LIFETIME_S, POLL_INTERVAL_S)

    async def _with_code(
        self, user_code: str, account: Authority, use: Callable[[str, float], Awaitable[Used]]
    ) -> Used:
        """Use a code, counting it against the account unless it was right."""
        subject, now = f"account {account.id}", self._clock()
        self._code_guesses.spend(subject, now=now)
        if (code := read_user_code(user_code)) is None:
            raise CodeUnknown
        used = await use(self._codes.hash(code), now)
        if used:
            self._code_guesses.refund(subject)
        return used

    async def _paced(self, enrollment: DeviceEnrollment, now: float) -> SlowDown | None:
        """Hold a machine to its interval; the time and the interval are kept for its next poll."""
        last = enrollment.last_polled_at
        early = last is not None and now < last + enrollment.interval - _POLL_TOLERANCE_S
        interval = enrollment.interval + (SLOW_DOWN_S if early else 0.0)
        await self._storage.enrollments.note_poll(enrollment.id, interval=interval, now=now)
        return SlowDown(interval) if early else None

    async def _redeem(self, enrollment: DeviceEnrollment) -> Poll:
        node_id = await self._storage.enrollments.redeem(enrollment.id)
        node = await self._storage.nodes.get(node_id) if node_id is not None else None
        if node is None:
            return Expired()
        if node.revoked_at is not None:
            return Denied()
        return Enrolled(node, self.credential_for(node))
