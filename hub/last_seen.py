"""When nodes were last seen: noted as they connect and leave, and now and then between.

Owns that note, which is for people: nothing decides by it. Connecting is noted with the session's number, in
storage; here is the rest. Must not know sessions or SQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from hub.errors import StorageUnavailable

log = logging.getLogger(__name__)

SEEN_EVERY_S = 30.0
"""Seconds between two notes in storage of which nodes are connected."""


class Book(Protocol):
    """What is asked of storage."""

    async def mark_seen(self, node_ids: Sequence[str], *, now: float) -> None:
        """Note that these nodes are connected at ``now``."""
        ...


class LastSeen:
    """Writes down which nodes are here, and at once which have left.

    Args:
        book: where it is written.
        connected: the nodes that are here now.
        clock: UTC seconds since the epoch.
    """

    def __init__(
        self, book: Book, connected: Callable[[], Collection[str]], clock: Callable[[], float]
    ) -> None:
        self._book = book
        self._connected = connected
        self._clock = clock
        self._left: set[str] = set()
        self._due = asyncio.Event()

    def left(self, node_id: str) -> None:
        """A session of this node has ended."""
        self._left.add(node_id)
        self._due.set()

    async def run(self) -> None:
        """Note until cancelled."""
        loop = asyncio.get_running_loop()
        next_round = loop.time() + SEEN_EVERY_S
        while True:
            try:
                async with asyncio.timeout_at(next_round):
                    await self._due.wait()
            except TimeoutError:
                next_round = loop.time() + SEEN_EVERY_S
                await self.note(self._connected())
            else:
                await self.note()

    async def note(self, others: Collection[str] = ()) -> None:
        """Write down those that have left, and others; what cannot be written now is tried again later."""
        self._due.clear()
        left, self._left = self._left, set()
        try:
            if left or others:
                await self._book.mark_seen(sorted(left.union(others)), now=self._clock())
        except StorageUnavailable:
            self._left |= left
            log.warning("connected nodes were not noted", extra={"event": "seen.failed"})
