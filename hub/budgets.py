"""What keys and organisations have used this month, known without asking the database.

Owns the sums: what storage had when it was last read, and what this process has recorded since. Must not know
limits or HTTP. Storage is read at the start and once a minute, which brings in what another process recorded;
between, each record counts the moment it is made. What waits in the spool is stored before storage is read,
so it counts too.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from hub.errors import StorageUnavailable
from hub.quotas import month_of, month_start
from hub.storage.records import UsageRecord

log = logging.getLogger(__name__)

REFRESH_EVERY_S = 60.0

Tokens = Counter[tuple[int, str]]
"""Tokens by month (as `month_of` numbers them) and id of a key or organisation."""


class UsageSource(Protocol):
    """What is asked of metering and storage."""

    async def tokens(
        self, mark: Callable[[], Tokens], *, since: float, until: float
    ) -> tuple[Tokens, Mapping[str, int]]:
        """Prompt and completion tokens by the id of each key and organisation, as stored.

        Among them is all that is recorded when ``mark`` is called, and nothing that is recorded after;
        returned with what ``mark`` returned.
        """
        ...


class MonthlyTokens:
    """Tokens used in calendar months (UTC). Reading and adding are synchronous."""

    def __init__(self) -> None:
        self._stored: Tokens = Counter()
        self._recorded: Tokens = Counter()
        self._month = 0
        self._until = self._since = 0.0

    def add(self, record: UsageRecord) -> None:
        """Count a record that was made just now."""
        tokens = record.prompt_tokens + record.completion_tokens
        month = self.month(record.created_at)
        self._recorded[month, record.key_id] += tokens
        self._recorded[month, record.organisation_id] += tokens

    def used(self, holder: str, utc: float) -> int:
        """Tokens that a key or an organisation has used in the month of ``utc``."""
        which = self.month(utc), holder
        return self._stored[which] + self._recorded[which]

    def month(self, utc: float) -> int:
        """`month_of`, remembered: the calendar is not worked out for each request."""
        if not self._since <= utc < self._until:
            self._month = month_of(utc)
            self._since, self._until = month_start(self._month), month_start(self._month + 1)
        return self._month

    def mark(self) -> Tokens:
        """What has been recorded up to now."""
        return self._recorded.copy()

    def replace(self, month: int, sums: Mapping[str, int], marked: Tokens) -> None:
        """Go by what storage says of a month, in which all that was ``marked`` is contained.

        Months before the one before it are forgotten: a clock that is set back finds that one still.
        """
        old = self._stored
        self._stored = Counter({which: count for which, count in old.items() if which[0] == month - 1})
        self._stored.update({(month, holder): count for holder, count in sums.items()})
        for which, count in marked.items():
            if which[0] == month:
                self._recorded[which] -= count
        self._recorded = Counter(
            {which: count for which, count in self._recorded.items() if count and which[0] >= month - 1}
        )


class Budgets:
    """Keeps `MonthlyTokens` true to storage."""

    def __init__(self, source: UsageSource, clock: Callable[[], float]) -> None:
        self._source = source
        self._clock = clock
        self.tokens = MonthlyTokens()

    async def refresh(self) -> None:
        """Read the month's sums.

        Raises:
            StorageUnavailable: nothing was read; what was known before still stands.
        """
        month = month_of(self._clock())
        marked, sums = await self._source.tokens(
            self.tokens.mark, since=month_start(month), until=month_start(month + 1)
        )
        self.tokens.replace(month, sums, marked)

    async def run(self) -> None:
        """Refresh each minute, forever."""
        while True:
            await asyncio.sleep(REFRESH_EVERY_S)
            try:
                await self.refresh()
            except StorageUnavailable:
                log.warning("the month's usage was not read", extra={"event": "budgets.failed"})
