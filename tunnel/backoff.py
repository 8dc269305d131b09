"""How long a node stays away after a dial that failed.

Owns the delays (seconds). Must not know sockets, tasks or the clock.
"""

from collections.abc import Callable
from random import random

BASE_S = 0.5
CAP_S = 30.0
STABLE_S = 60.0  # a session that lived this long wipes the slate clean
REFUSED_BASE_S = 60.0
REFUSED_CAP_S = 900.0


class Backoff:
    """Full jitter for failures, minutes for refusals.

    Args:
        jitter: Gives numbers in [0, 1).
    """

    def __init__(self, jitter: Callable[[], float] = random) -> None:
        self._jitter = jitter
        self._failures = 0
        self._refusals = 0

    def failed(self, retry_after: float | None = None) -> float:
        """Give the delay after a failure; what the Hub asked for is the least, spread a little."""
        ceiling = min(CAP_S, BASE_S * float(2 ** min(self._failures, 16)))
        self._failures += 1
        delay = ceiling * self._jitter()
        return delay if retry_after is None else retry_after + delay

    def refused(self, retry_after: float | None = None) -> float:
        """Give the delay after the Hub said it does not know us: 1 min doubling to 15."""
        ceiling = min(REFUSED_CAP_S, REFUSED_BASE_S * float(2 ** min(self._refusals, 8)))
        self._refusals += 1
        return max(retry_after or 0.0, ceiling * (0.8 + 0.2 * self._jitter()))

    def connected(self, lasted_s: float) -> None:
        """Note how long a session lasted."""
        self._refusals = 0
        if lasted_s >= STABLE_S:
            self._failures = 0
