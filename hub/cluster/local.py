"""One Hub process beside others that write the same database, such as `porten-hub keys revoke`.

Owns the watch on the revision counter: when it moves, what was copied is read again; while it cannot be read,
what was copied is believed for a time and no longer. Knows nothing of what the copies are.

The rule has two halves. What is *known* to have changed counts at once, whatever the database does: a change
made through this process drops its copy itself, and one whose revision was seen and whose content cannot be
read drops everything. What *may* have changed while nobody can be asked is weighed against an outage that
stops everything: for `believed_s` seconds the copies stand, then nothing is believed any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from hub.errors import StorageUnavailable

log = logging.getLogger(__name__)

POLL_S = 1.0
ANSWER_S = 3.0
"""Seconds that one look waits for the database."""


class Copies(Protocol):
    """What follows the database."""

    @property
    def incomplete(self) -> bool:
        """Whether something is missing, whatever the revision says."""
        ...

    async def reload(self) -> None:
        """Something changed: read everything again."""
        ...

    async def complete(self) -> None:
        """Nothing changed: read what is missing, and keep the rest."""
        ...

    def forget(self) -> None:
        """Believe nothing until `reload` has succeeded."""
        ...


class RevisionWatch:
    """Follows the revision counter. Time is passed in, so that the rule can be tried without waiting.

    Args:
        revision: asks the database; it must not hang.
        copies: what follows it.
        believed_s: seconds without an answer after which the copies are not believed any more.
        told: told at each look whether the database answered.
    """

    def __init__(
        self,
        revision: Callable[[], Awaitable[int]],
        copies: Copies,
        *,
        believed_s: float,
        told: Callable[[bool], None] = lambda _answered: None,
    ) -> None:
        self._revision = revision
        self._copies = copies
        self._believed_s = believed_s
        self._told = told
        self._seen: int | None = None
        self._answered_at: float | None = None
        self._away = False

    async def look(self, now: float) -> None:
        """Look once. ``now`` is monotonic seconds."""
        try:
            revision = await self._revision()
            if revision == self._seen and self._copies.incomplete:
                await self._copies.complete()
        except StorageUnavailable:
            self._unanswered(now)
            return
        self._answered(now)
        if revision != self._seen:
            await self._reload(revision)

    async def _reload(self, revision: int) -> None:
        try:
            await self._copies.reload()
        except StorageUnavailable:
            self._forget("revision.unread")  # something did change, and nobody can say what
            return
        self._seen = revision
        log.debug("read anew", extra={"event": "revision.read", "revision": revision})

    def _answered(self, now: float) -> None:
        if self._away:
            log.warning("the database answers again", extra={"event": "database.back"})
        self._away, self._answered_at = False, now
        self._told(not self._away)

    def _unanswered(self, now: float) -> None:
        if not self._away:
            log.error(
                "the database does not answer; copies are believed for a while",
                extra={"event": "database.away", "believed_s": self._believed_s},
            )
        self._away = True
        self._told(not self._away)
        if self._answered_at is None or now - self._answered_at > self._believed_s:
            self._forget("revision.unknown")

    def _forget(self, event: str) -> None:
        if self._seen is not None:
            log.error("copies of the database are not believed any more", extra={"event": event})
        self._seen = None
        self._copies.forget()

    async def run(self) -> None:
        """Look each second, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await self.look(loop.time())
            await asyncio.sleep(POLL_S)
