"""When keys were last used: noted for each request that a key opened, whatever became of it.

Owns that note, which is for people: nothing decides by it. A request that a limit or the policy refused
counts too, since it tells that somebody still has the secret; which of a key's two secrets it was is told
apart. Must not know SQL or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Protocol

from hub.errors import StorageUnavailable

log = logging.getLogger(__name__)

NOTE_EVERY_S = 2.0
"""Seconds between two notes in storage; a killed Hub forgets that many."""


class Book(Protocol):
    """What is asked of storage."""

    async def mark_used(self, used_at: Mapping[str, float]) -> None:
        """Note when keys were last used, by the hashes of their secrets."""
        ...


class KeyUse:
    """Writes down, now and then, which secrets were used since the last time."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._used: dict[str, float] = {}
        self._failing = False

    def used(self, secret_hash: str, at: float) -> None:
        """A secret opened a key at ``at``, UTC seconds since the epoch."""
        self._used[secret_hash] = at

    async def note(self) -> None:
        """Write it down; what cannot be written now is tried again later."""
        used, self._used = self._used, {}
        try:
            if used:
                await self._book.mark_used(used)
        except StorageUnavailable:
            self._used = used | self._used
            if not self._failing:  # once an outage, not each time that is tried
                log.warning("uses of keys were not noted", extra={"event": "key_use.failed"})
            self._failing = True
        else:
            self._failing = False

    async def run(self) -> None:
        """Note until cancelled."""
        while True:
            await asyncio.sleep(NOTE_EVERY_S)
            await self.note()
