"""When to ping, and when a peer counts as dead.

Owns the session's timers as plain arithmetic. Must not know frames, tasks or any clock: `now` is
passed in, seconds on a clock that never goes back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import random

PING_JITTER = 0.2  # of the interval, either way: sessions must not ping in step


@dataclass(frozen=True, slots=True)
class LivenessTimes:
    """All in seconds."""

    ping_s: float = 15.0
    silence_s: float = 40.0
    stall_s: float = 20.0

    @classmethod
    def for_heartbeat(cls, heartbeat_s: float) -> "LivenessTimes":
        """Keep the proportions of the default (15, 40, 20) for another PING interval."""
        return cls(heartbeat_s, heartbeat_s * 8 / 3, heartbeat_s * 4 / 3)


DEFAULT_TIMES = LivenessTimes()


class Liveness:
    """One session's timers.

    Args:
        times: The intervals.
        pings: Whether this side sends PING (the Hub does).
        now: The moment the session began.
        jitter: Gives numbers in [0, 1).
    """

    def __init__(
        self, times: LivenessTimes, *, pings: bool, now: float, jitter: Callable[[], float] = random
    ) -> None:
        self._times = times
        self._jitter = jitter
        self._ticked = now
        self._next_ping = self._after_ping(now) if pings else float("inf")
        self.heard = now
        self.writing_since: float | None = None

    def next_deadline(self) -> float:
        """When `tick` must be called next, at the latest.

        A write that starts after this answer needs no new timer: a stall is looked for at least
        every `stall_s`, and then due at its exact time.
        """
        stall_from = self._ticked if self.writing_since is None else self.writing_since
        return min(self._next_ping, self.heard + self._times.silence_s, stall_from + self._times.stall_s)

    def dead(self, now: float) -> str | None:
        """Say why the peer is dead, if it is."""
        self._ticked = now
        if now >= self.heard + self._times.silence_s:  # the same sums as in next_deadline
            return "silent"
        if self.writing_since is not None and now >= self.writing_since + self._times.stall_s:
            return "stalled"
        return None

    def ping_due(self, now: float) -> bool:
        """Say whether to ping now, and plan the next one."""
        if now < self._next_ping:
            return False
        self._next_ping = self._after_ping(now)
        return True

    def _after_ping(self, now: float) -> float:
        return now + self._times.ping_s * (1 - PING_JITTER + 2 * PING_JITTER * self._jitter())
