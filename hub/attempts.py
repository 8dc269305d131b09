"""Rate limits on guessing: passwords, user codes, join tokens.

Owns the counting of attempts in a sliding window, in memory: a restart forgives, and a limit is no ledger.
Time is an argument. Must not know what is guessed.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from hub.errors import TooManyAttempts

_MAX_SUBJECTS = 10_000  # bounds memory under a flood from many addresses; the longest silent are forgotten


@dataclass(frozen=True, slots=True)
class Limit:
    """So many attempts in so many seconds."""

    attempts: int
    window_s: float


class Attempts:
    """Attempts of each subject (an account, an address, both joined)."""

    def __init__(self, limit: Limit) -> None:
        self._limit = limit
        self._seen: OrderedDict[str, deque[float]] = OrderedDict()

    def spend(self, subject: str, *, now: float) -> None:
        """Count an attempt, before it is looked at: of a hundred at the same moment only few are let on.

        Raises:
            TooManyAttempts: with the seconds until the oldest attempt leaves the window.
        """
        self.check(subject, now=now)
        recent = self._recent(subject, now)
        recent.append(now)
        self._seen[subject] = recent
        self._seen.move_to_end(subject)
        while len(self._seen) > _MAX_SUBJECTS:
            self._seen.popitem(last=False)

    def check(self, subject: str, *, now: float) -> None:
        """Refuse a subject that has spent all of its attempts, and count nothing.

        For secrets of so much chance that a hundred at the same moment guess none: those who hold one are
        not kept waiting by each other.

        Raises:
            TooManyAttempts: with the seconds until the oldest attempt leaves the window.
        """
        recent = self._recent(subject, now)
        if len(recent) >= self._limit.attempts:
            raise TooManyAttempts(max(recent[0] + self._limit.window_s - now, 1.0))

    def refund(self, subject: str) -> None:
        """Take back one attempt, which was no guess. The others stay: one success does not wash them off."""
        if seen := self._seen.get(subject):
            seen.pop()

    def _recent(self, subject: str, now: float) -> deque[float]:
        seen = self._seen.get(subject) or deque()
        while seen and seen[0] <= now - self._limit.window_s:
            seen.popleft()
        return seen
