"""One Hub process beside others that write the same database, such as `porten-hub keys revoke`.

Owns the watch on the revision counter: when it moves, what was copied is read again; when it cannot be read
for too long, what was copied is no longer believed. Knows nothing of what the copies are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from hub.errors import StorageUnavailable

log = logging.getLogger(__name__)

POLL_S = 1.0
BELIEVED_S = 30.0
"""Seconds without an answer from the database after which its copies are not believed any more."""


class Copies(Protocol):
    """What follows the database."""

    @property
    def incomplete(self) -> bool:
        """Whether something is missing, whatever the revision says."""
        ...

    async def reload(self) -> None:
        """Read everything again."""
        ...

    def forget(self) -> None:
        """Believe nothing until `reload` has succeeded."""
        ...


class RevisionWatch:
    """Follows the revision counter. Time is passed in, so that the rule can be tried without waiting."""

    def __init__(self, revision: Callable[[], Awaitable[int]], copies: Copies) -> None:
        self._revision = revision
        self._copies = copies
        self._seen: int | None = None
        self._answered_at: float | None = None

    async def look(self, now: float) -> None:
        """Look once. ``now`` is monotonic seconds."""
        try:
            revision = await self._revision()
        except StorageUnavailable:
            if self._answered_at is None or now - self._answered_at > BELIEVED_S:
                self._forget("revision.unknown")
            return
        self._answered_at = now
        if revision == self._seen and not self._copies.incomplete:
            return
        try:
            await self._copies.reload()
        except StorageUnavailable:
            self._forget("revision.unread")  # something did change, and nobody can say what
            return
        self._seen = revision

    def _forget(self, event: str) -> None:
        log.error("the database does not answer", extra={"event": event})
        self._seen = None
        self._copies.forget()

    async def run(self) -> None:
        """Look each second, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await self.look(loop.time())
            await asyncio.sleep(POLL_S)
