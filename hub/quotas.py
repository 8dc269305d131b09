"""How much a key or an organisation may use: requests and tokens a minute, requests at once, tokens a month.

Owns the arithmetic of these limits. Pure: time is an argument, nothing is looked up. Must not know HTTP,
nodes or storage; `hub.limits` holds the state of one Hub process and calls here.

**A minute.** Requests and tokens each have a token bucket (J. Turner, "New directions in communications (or
which way to the information age?)", IEEE Communications Magazine 24(10), 1986; the same rule is ITU-T I.371's
generic cell rate algorithm): it holds one minute's allowance and fills evenly. Over any span of *t* seconds
what is let through is at most ``limit * (1 + t / 60)``, so over any minute at most twice the limit, and that
only after a minute of rest.

**Tokens.** What a request will cost is not known before it is answered. It reserves an estimate (`estimate`),
passes only if that much is there, and when it ends, however it ends, what it did not use goes back, but for
what time has filled up again meanwhile: else requests that are kept open could save allowances up. Where it
used more, the bucket goes below zero and the debt is paid before anything else passes. So the requests let
through in any span of *t* seconds use at most ``limit * (1 + t / 60)`` tokens and what those under way at the
last admission use beyond their estimates: nothing where ``max_tokens`` is given and the prompt is text.

**A month** (calendar month, UTC): a request passes if what was used, what is reserved and its own estimate
stay within the budget. Beyond it goes only what requests under way use beyond their estimates.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from hub.errors import InvalidInput, RequestFailed

MINUTE_S = 60.0
BYTES_PER_TOKEN = 4
"""A body's bytes for each token of its prompt, for the estimate: about what English text comes to."""
UNSAID_COMPLETION = 512
"""Tokens that an answer is reckoned with where the request does not say how many it may have."""
SOON_S = 1.0
"""Told where nobody can know when it passes: when a request that is under way will end."""
LARGEST_COUNT = 2**31 - 1
LARGEST_TOKENS = 10**15

Kind = TypeVar("Kind", bound="Bucket")

_TOLERANCE_S = 1e-6  # a microsecond's refill is not waited for: floating point would make Retry-After untrue


@dataclass(frozen=True, slots=True)
class Allowance:
    """The limits of a key, or an organisation's ceiling over all of its keys; ``None`` is no limit."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None
    monthly_tokens: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """Nothing is limited."""
        return self == UNLIMITED


UNLIMITED = Allowance()
LARGEST = Allowance(LARGEST_COUNT, LARGEST_TOKENS, LARGEST_COUNT, LARGEST_TOKENS)
"""What a limit may be at most: what the database can hold, and what arithmetic is exact for."""


def checked_allowance(allowance: Allowance) -> Allowance:
    """Hold limits to what can be stored and obeyed.

    Raises:
        InvalidInput: one of them is below 1 or beyond what can be kept.
    """
    for field in Allowance.__dataclass_fields__:
        value, most = getattr(allowance, field), getattr(LARGEST, field)
        if value is not None and not 1 <= value <= most:
            raise InvalidInput(field, f"must be a whole number from 1 to {most}, or empty for no limit")
    return allowance


def estimate(
    body_bytes: int, completion: int | None, *, generates: bool, context_length: int | None = None
) -> int:
    """Tokens that a request is reckoned with until it has been answered, at least 1.

    Args:
        body_bytes: size of the request's body.
        completion: the most tokens that the request lets its answer have, where it says so.
        generates: whether the endpoint answers with tokens at all (embeddings do not).
        context_length: tokens that prompt and answer cannot exceed together, where that is known.
    """
    unsaid = UNSAID_COMPLETION if generates else 0
    cost = body_bytes // BYTES_PER_TOKEN + (unsaid if completion is None else max(completion, 0))
    return max(1, cost if context_length is None else min(cost, context_length))


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a limit a minute stands: the limit, how much is left, seconds until all of it is there again."""

    limit: int
    left: int
    reset_s: float


class Bucket:
    """One minute's allowance, filling evenly. ``now`` is any seconds; a clock set back refills nothing."""

    __slots__ = ("_at", "_level", "per_minute")

    def __init__(self, per_minute: int, now: float) -> None:
        self.per_minute = per_minute
        self._level = float(per_minute)
        self._at = now

    def resize(self, per_minute: int, now: float) -> None:
        """Change the limit; what was spent stays spent."""
        self._refill(now)
        self._level += per_minute - self.per_minute
        self.per_minute = per_minute

    def wait(self, cost: int, now: float) -> float:
        """Seconds until ``cost`` would pass, 0 if now. More than the bucket holds counts as all of it."""
        self._refill(now)
        missing = min(cost, self.per_minute) - self._level
        if self.per_minute <= 0:
            return math.inf  # a limit that could not be read lets nothing through
        wait = missing * MINUTE_S / self.per_minute
        return wait if wait > _TOLERANCE_S else 0.0

    def add(self, amount: float, now: float) -> None:
        """Give, or with a negative amount take, without asking: into debt if need be."""
        self._refill(now)
        self._level = min(self._level + amount, float(self.per_minute))

    def standing(self, now: float) -> Standing:
        """How it stands."""
        self._refill(now)
        rate = self.per_minute / MINUTE_S
        left = math.floor(max(self._level, 0.0) + rate * _TOLERANCE_S)
        reset = (self.per_minute - self._level) / rate if rate else 0.0
        return Standing(self.per_minute, left, reset)

    def is_full(self, now: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return self.standing(now).reset_s <= _TOLERANCE_S

    def _refill(self, now: float) -> None:
        elapsed, self._at = now - self._at, now
        if elapsed > 0 and self._level < self.per_minute:
            level = self._level + elapsed * self.per_minute / MINUTE_S
            self._level = level if level < self.per_minute else float(self.per_minute)


class Held:
    """What one request reserved of a bucket: ``taken`` at first, of which ``back`` may still go back."""

    __slots__ = ("back", "taken")

    def __init__(self, taken: int) -> None:
        self.taken = taken
        self.back = float(taken)


class TokenBucket(Bucket):
    """A bucket of which requests reserve before it is known what they use.

    Its level and all that may still go back are never more than it holds, so that no span sees more than one
    allowance that was saved up. What time fills beyond that was filled in place of the oldest reservations.
    """

    __slots__ = ("_back", "_open")

    def __init__(self, per_minute: int, now: float) -> None:
        super().__init__(per_minute, now)
        self._open: dict[Held, None] = {}
        self._back = 0.0

    def reserve(self, cost: int, now: float) -> Held:
        """Take what `wait` was asked for."""
        held = Held(min(cost, self.per_minute))
        self.add(-held.taken, now)
        self._open[held] = None
        self._back += held.taken
        return held

    def settle(self, held: Held, used: int, now: float) -> None:
        """End a reservation of which ``used`` was needed."""
        self._refill(now)
        self._back -= held.back
        self._open.pop(held, None)
        self.add(min(held.taken - used, held.back), now)

    def _refill(self, now: float) -> None:
        if now == self._at:
            return
        super()._refill(now)
        surplus = self._level + self._back - self.per_minute
        while surplus > 0 and self._open:
            oldest = next(iter(self._open))
            cut = min(oldest.back, surplus)
            oldest.back -= cut
            self._back -= cut
            surplus -= cut
            if oldest.back <= 0:
                del self._open[oldest]


class Quota:
    """What one key or one organisation has used lately, held to its allowance.

    Attributes:
        holder: the key's or organisation's id.
        whose: begins the sentences of its refusals: ``This key`` or ``Your organisation``.
        reserved: tokens of the month's budget that requests under way may still use.
        reserving: how many requests hold a reservation.
    """

    __slots__ = ("allowance", "holder", "requests", "reserved", "reserving", "tokens", "whose")

    def __init__(self, holder: str, whose: str, allowance: Allowance, now: float) -> None:
        self.holder = holder
        self.whose = whose
        self.allowance = UNLIMITED
        self.requests: Bucket | None = None
        self.tokens: TokenBucket | None = None
        self.reserved = 0
        self.reserving = 0
        self.obey(allowance, now)

    def obey(self, allowance: Allowance, now: float) -> None:
        """Go by other limits from now on."""
        if allowance != self.allowance:
            self.allowance = allowance
            self.requests = _resized(Bucket, self.requests, allowance.requests_per_minute, now)
            self.tokens = _resized(TokenBucket, self.tokens, allowance.tokens_per_minute, now)

    def is_idle(self, now: float) -> bool:
        """Whether nothing would be lost by forgetting it."""
        buckets = (self.requests, self.tokens)
        return not self.reserving and all(bucket is None or bucket.is_full(now) for bucket in buckets)

    def check_budget(self, cost: int, used: int, until_next_month_s: float) -> None:
        """Hold a request to what is left of the month's budget.

        Raises:
            RequestFailed: ``quota_exceeded``; or ``rate_limit_exceeded`` where only requests under way hold
                what is left, and may leave some of it.
        """
        budget = self.allowance.monthly_tokens
        if budget is None:
            return
        wanted = min(cost, budget)
        if budget <= 0 or used + wanted > budget:
            left = max(budget - used, 0)
            raise RequestFailed(
                "quota_exceeded",
                f"{self.whose} may use {budget:,} tokens a month and has {left:,} left; this request may "
                f"take {wanted:,}. The budget is whole again with the next month (UTC).",
                retry_after=until_next_month_s if budget > 0 else None,
            )
        if used + self.reserved + wanted > budget:
            raise RequestFailed(
                "rate_limit_exceeded",
                f"{self.whose} may use {budget:,} tokens a month; requests under way hold what is left.",
                retry_after=SOON_S,
            )


def _resized(kind: type[Kind], bucket: Kind | None, per_minute: int | None, now: float) -> Kind | None:
    if per_minute is None:
        return None
    if bucket is None:
        return kind(per_minute, now)
    bucket.resize(per_minute, now)
    return bucket


class Reservation:
    """What one request holds of several quotas' tokens until it ends."""

    __slots__ = ("_held", "_settled")

    def __init__(self, quotas: Sequence[Quota], cost: int, now: float) -> None:
        """Take it; whether it may be taken was asked before."""
        self._held: list[tuple[Quota, int, TokenBucket | None, Held | None]] = []
        self._settled = False
        for quota in quotas:
            bucket, budget = quota.tokens, quota.allowance.monthly_tokens
            reserved = 0 if budget is None else min(cost, budget)
            quota.reserved += reserved
            quota.reserving += 1
            self._held.append(
                (quota, reserved, bucket, None if bucket is None else bucket.reserve(cost, now))
            )

    def settle(self, used: int, now: float) -> None:
        """Give the reservation back and take what was used; a second call does nothing."""
        if self._settled:
            return
        self._settled = True
        for quota, reserved, bucket, held in self._held:
            quota.reserved -= reserved
            quota.reserving -= 1
            if bucket is not None and held is not None:
                bucket.settle(held, used, now)


def take_request(quotas: Sequence[Quota], now: float) -> None:
    """Count a request in all of the quotas, or in none.

    Raises:
        RequestFailed: ``rate_limit_exceeded``, with the seconds after which it would pass.
    """
    buckets = [(quota, quota.requests) for quota in quotas if quota.requests is not None]
    waits = [(bucket.wait(1, now), quota.whose, bucket.per_minute) for quota, bucket in buckets]
    wait, whose, limit = max(waits, default=(0.0, "", 0))
    if wait > 0:
        raise _too_fast(f"{whose} may make {limit:,} requests a minute", wait)
    for _, bucket in buckets:
        bucket.add(-1, now)


def give_request_back(quotas: Sequence[Quota], now: float) -> None:
    """Undo `take_request`: what is refused for its tokens costs no request."""
    for quota in quotas:
        if quota.requests is not None:
            quota.requests.add(1, now)


def check_tokens(quotas: Sequence[Quota], cost: int, now: float) -> None:
    """Ask whether all of the quotas have the tokens of a request.

    Raises:
        RequestFailed: ``rate_limit_exceeded``, with the seconds after which it would pass.
    """
    buckets = [(quota.whose, quota.tokens) for quota in quotas if quota.tokens is not None]
    waits = [(bucket.wait(cost, now), whose, bucket.per_minute) for whose, bucket in buckets]
    wait, whose, limit = max(waits, default=(0.0, "", 0))
    if wait > 0:
        wanted = min(cost, limit)
        raise _too_fast(f"{whose} may use {limit:,} tokens a minute; this request may take {wanted:,}", wait)


def tightest(buckets: Sequence[Bucket], now: float) -> Standing | None:
    """Of several limits on the same thing, the one of which least is left."""
    return min((bucket.standing(now) for bucket in buckets), key=_scarcity, default=None)


def _scarcity(standing: Standing) -> tuple[int, int]:
    return standing.left, standing.limit


def _too_fast(words: str, wait: float) -> RequestFailed:
    if math.isinf(wait):
        return RequestFailed("rate_limit_exceeded", f"{words}. The limit cannot be read: set it anew.")
    message = f"{words}. Try again in {max(wait, 0.001):.3g} seconds."
    return RequestFailed("rate_limit_exceeded", message, retry_after=wait)


def month_of(utc: float) -> int:
    """The calendar month of a moment as one number that grows by 1 each month."""
    moment = datetime.fromtimestamp(utc, UTC)
    return moment.year * 12 + moment.month - 1


def month_start(month: int) -> float:
    """When a month of `month_of` began, in UTC seconds since the epoch."""
    return datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp()
