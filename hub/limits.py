"""How much the Hub carries at once: requests, requests of one key, bodies and their bytes.

Owns those counts and nothing of what is counted. Pure: no I/O, no clock. A limit that is reached refuses; the
queue for nodes that are full is the dispatcher's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from hub import refusals
from hub.errors import RequestFailed

BODY_BUDGET_BYTES = 1024 * 1024 * 1024
"""Bytes of request bodies held at once by one Hub process, whatever one body may have."""

SHARE = 4
"""One organisation may hold the budget divided by this, so that none takes what the others need."""

_RETRY_AFTER_S = 1.0


class Hold:
    """One request's share."""

    def __init__(self, limits: Limits, organisation_id: str) -> None:
        self._limits = limits
        self._organisation_id = organisation_id
        self.body_bytes = 0

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
        """Give back what the body took."""
        self._limits.body_bytes -= self.body_bytes
        _lower(self._limits.held, self._organisation_id, self.body_bytes)


class Limits:
    """The counts of one Hub process."""

    def __init__(self, *, max_requests: int, max_per_key: int) -> None:
        self._max_requests = max_requests
        self._max_per_key = max_per_key
        self._by_key: Counter[str] = Counter()
        self._requests = 0
        self.body_bytes = 0
        self.held: Counter[str] = Counter()
        self.arriving: Counter[str] = Counter()
        self.max_arriving = max(1, max_requests // SHARE)

    @contextmanager
    def request(self, key_id: str, organisation_id: str) -> Iterator[Hold]:
        """Count a request for as long as it lasts.

        Raises:
            RequestFailed: ``overloaded`` or ``rate_limit_exceeded``.
        """
        if self._requests >= self._max_requests:
            raise refusals.overloaded()
        if self._by_key[key_id] >= self._max_per_key:
            raise _too_many(self._max_per_key)
        self._requests += 1
        self._by_key[key_id] += 1
        hold = Hold(self, organisation_id)
        try:
            yield hold
        finally:
            self._requests -= 1
            _lower(self._by_key, key_id, 1)
            hold.release()


def _lower(counts: Counter[str], name: str, amount: int) -> None:
    counts[name] -= amount
    if not counts[name]:
        del counts[name]


def _too_many(limit: int) -> RequestFailed:
    return RequestFailed(
        "rate_limit_exceeded",
        f"This key has {limit} requests under way, which is its limit.",
        retry_after=_RETRY_AFTER_S,
        limit=limit,
    )


def _over_share() -> RequestFailed:
    return RequestFailed(
        "rate_limit_exceeded",
        "The bodies of your organisation's requests take up its share of the Hub's room.",
        retry_after=_RETRY_AFTER_S,
    )
