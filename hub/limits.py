"""How much the Hub carries at once: requests, requests of one key, bytes of bodies.

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

_RETRY_AFTER_S = 1.0


class Hold:
    """One request's share."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.body_bytes = 0

    def grow(self, size: int) -> None:
        """Ask for room for more bytes of the body.

        Raises:
            RequestFailed: ``overloaded``: the bodies held by all requests leave none.
        """
        if self._limits.body_bytes + size > BODY_BUDGET_BYTES:
            raise refusals.overloaded()
        self._limits.body_bytes += size
        self.body_bytes += size


class Limits:
    """The counts of one Hub process."""

    def __init__(self, *, max_requests: int, max_per_key: int) -> None:
        self._max_requests = max_requests
        self._max_per_key = max_per_key
        self._by_key: Counter[str] = Counter()
        self._requests = 0
        self.body_bytes = 0

    @contextmanager
    def request(self, key_id: str) -> Iterator[Hold]:
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
        hold = Hold(self)
        try:
            yield hold
        finally:
            self._requests -= 1
            self._by_key[key_id] -= 1
            self.body_bytes -= hold.body_bytes
            if not self._by_key[key_id]:
                del self._by_key[key_id]


def _too_many(limit: int) -> RequestFailed:
    return RequestFailed(
        "rate_limit_exceeded",
        f"This key has {limit} requests under way, which is its limit.",
        retry_after=_RETRY_AFTER_S,
        limit=limit,
    )
