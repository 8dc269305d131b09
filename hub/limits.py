"""What the Hub carries at once, and what each key and organisation has used of its limits.

Owns those counts in one Hub process, and nothing of what is counted: requests and bodies here, the rules of a
minute and a month in `hub.quotas`. A limit that is reached refuses; the queue for nodes that are full is the
dispatcher's. All of it is in memory: a request pays no look into the database, and a restart forgives the
minute (the month it reads again, see `hub.budgets`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from hub import quotas, refusals
from hub.errors import RequestFailed
from hub.quotas import Allowance, Quota, Reservation, Standing
from hub.storage.records import ApiKey

BODY_BUDGET_BYTES = 1024 * 1024 * 1024
"""Bytes of request bodies held at once by one Hub process, whatever one body may have."""

SHARE = 4
"""One organisation may hold the budget divided by this, so that none takes what the others need."""

MAX_QUOTAS = 10_000
"""Keys and organisations whose minute is remembered, beyond which those that rest are forgotten."""


class MonthlyUse(Protocol):
    """What is asked of `hub.budgets`."""

    def used(self, holder: str, utc: float) -> int:
        """Tokens used in the month of ``utc`` by a key or an organisation."""
        ...

    def month(self, utc: float) -> int:
        """The month of ``utc``, as `hub.quotas` numbers them."""
        ...


class Hold:
    """One request's share.

    Attributes:
        body_bytes: what its body takes.
        used: tokens that it has used, once that is known; taken from its limits when it ends.
    """

    def __init__(self, limits: Limits, key: ApiKey, held_to: Sequence[Quota]) -> None:
        self._limits = limits
        self._organisation_id = key.organisation_id
        self._held_to = held_to
        self._reservation: Reservation | None = None
        self.body_bytes = 0
        self.used = 0

    def reserve(self, tokens: int) -> None:
        """Set aside the tokens that the request is reckoned with, until it ends.

        Raises:
            RequestFailed: ``quota_exceeded`` or ``rate_limit_exceeded``; it then counts as no request.
        """
        if self._held_to:
            self._reservation = self._limits.reserve(self._held_to, tokens)

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Count the body among those that are still coming.

        Raises:
            RequestFailed: ``rate_limit_exceeded``: the organisation has its share of them.
        """
        arriving, owner = self._limits.arriving, self._organisation_id
        if arriving[owner] >= self._limits.max_arriving:
            raise _over_share()
        arriving[owner] += 1
        try:
            yield
        finally:
            _lower(arriving, owner, 1)

    def grow(self, size: int) -> None:
        """Ask for room for more bytes of the body.

        Raises:
            RequestFailed: ``overloaded``: the bodies held by all requests leave none; or
                ``rate_limit_exceeded``: those of the organisation have its share.
        """
        held, owner = self._limits.held, self._organisation_id
        if self._limits.body_bytes + size > BODY_BUDGET_BYTES:
            raise refusals.overloaded()
        if held[owner] + size > BODY_BUDGET_BYTES // SHARE:
            raise _over_share()
        self._limits.body_bytes += size
        held[owner] += size
        self.body_bytes += size

    def release(self) -> None:
        """Give back what the body took and what was reserved; what was used stays taken."""
        if self._reservation is not None:
            self._limits.settle(self._reservation, self.used)
        self._limits.body_bytes -= self.body_bytes
        _lower(self._limits.held, self._organisation_id, self.body_bytes)


class Limits:
    """The counts of one Hub process."""

    def __init__(
        self,
        *,
        max_requests: int,
        max_per_key: int,
        monthly: MonthlyUse,
        clock: Callable[[], float],
        timer: Callable[[], float],
    ) -> None:
        """Begin with nothing used.

        Args:
            max_requests: requests carried at once.
            max_per_key: of them, those of one key.
            monthly: what was used this month.
            clock: UTC seconds since the epoch, for the month.
            timer: seconds that only grow, for the minute.
        """
        self._max_requests = max_requests
        self._max_per_key = max_per_key
        self._monthly = monthly
        self._clock = clock
        self._timer = timer
        self._quotas: dict[str, Quota] = {}
        self._by_key: Counter[str] = Counter()
        self._by_organisation: Counter[str] = Counter()
        self._requests = 0
        self.body_bytes = 0
        self.held: Counter[str] = Counter()
        self.arriving: Counter[str] = Counter()
        self.max_arriving = max(1, max_requests // SHARE)

    @contextmanager
    def request(self, key: ApiKey) -> Iterator[Hold]:
        """Count a request for as long as it lasts.

        Raises:
            RequestFailed: ``overloaded`` or ``rate_limit_exceeded``.
        """
        self._check_room(key)
        held_to = self._held_to(key)
        if held_to:
            quotas.take_request(held_to, self._timer())
        self._requests += 1
        self._by_key[key.id] += 1
        self._by_organisation[key.organisation_id] += 1
        hold = Hold(self, key, held_to)
        try:
            yield hold
        finally:
            self._requests -= 1
            _lower(self._by_key, key.id, 1)
            _lower(self._by_organisation, key.organisation_id, 1)
            hold.release()

    def _check_room(self, key: ApiKey) -> None:
        if self._requests >= self._max_requests:
            raise refusals.overloaded()
        most, ceiling = key.limits.concurrent_requests, key.ceiling.concurrent_requests
        if self._by_key[key.id] >= (limit := _least(self._max_per_key, most)):
            raise _too_many("This key", limit)
        if ceiling is not None and self._by_organisation[key.organisation_id] >= ceiling:
            raise _too_many("Your organisation", ceiling)

    def standings(self, key: ApiKey) -> tuple[Standing | None, Standing | None]:
        """How a key's limits a minute stand, of requests and of tokens, the tightest of each.

        ``None`` where there is no limit.
        """
        held_to = self._held_to(key)
        if not held_to:
            return None, None
        now = self._timer()
        requests = [quota.requests for quota in held_to if quota.requests is not None]
        tokens = [quota.tokens for quota in held_to if quota.tokens is not None]
        return quotas.tightest(requests, now), quotas.tightest(tokens, now)

    def reserve(self, held_to: Sequence[Quota], tokens: int) -> Reservation:
        """Set tokens aside in all of the quotas, or refuse; see `Hold.reserve`."""
        now = self._timer()
        try:
            for quota in held_to:
                self._check_budget(quota, tokens)
            quotas.check_tokens(held_to, tokens, now)
        except RequestFailed:
            quotas.give_request_back(held_to, now)
            raise
        return Reservation(held_to, tokens, now)

    def _check_budget(self, quota: Quota, tokens: int) -> None:
        if quota.allowance.monthly_tokens is None:
            return
        utc = self._clock()
        next_month = quotas.month_start(self._monthly.month(utc) + 1)
        quota.check_budget(tokens, self._monthly.used(quota.holder, utc), next_month - utc)

    def settle(self, reservation: Reservation, used: int) -> None:
        """End a reservation."""
        reservation.settle(used, self._timer())

    def _held_to(self, key: ApiKey) -> list[Quota]:
        """The limits that a request of this key meets: its own, and its organisation's."""
        own, ceiling = key.limits, key.ceiling
        found = [] if own.is_unlimited else [self._quota(key.id, "This key", own)]
        if not ceiling.is_unlimited:
            found.append(self._quota(key.organisation_id, "Your organisation", ceiling))
        return found

    def _quota(self, holder: str, whose: str, allowance: Allowance) -> Quota:
        found = self._quotas.get(holder)
        if found is None:
            if len(self._quotas) >= MAX_QUOTAS:
                self._forget_idle()
            found = self._quotas[holder] = Quota(holder, whose, allowance, self._timer())
        else:
            found.obey(allowance, self._timer())
        return found

    def _forget_idle(self) -> None:
        now = self._timer()
        self._quotas = {holder: quota for holder, quota in self._quotas.items() if not quota.is_idle(now)}


def _lower(counts: Counter[str], name: str, amount: int) -> None:
    counts[name] -= amount
    if not counts[name]:
        del counts[name]


def _least(limit: int, own: int | None) -> int:
    return limit if own is None else min(limit, own)


def _too_many(whose: str, limit: int) -> RequestFailed:
    return RequestFailed(
        "rate_limit_exceeded",
        f"{whose} has {limit:,} requests under way, which is the limit.",
        retry_after=quotas.SOON_S,
    )


def _over_share() -> RequestFailed:
    return RequestFailed(
        "rate_limit_exceeded",
        "The bodies of your organisation's requests take up its share of the Hub's room.",
        retry_after=quotas.SOON_S,
    )
