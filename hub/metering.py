"""Usage records that survive the process.

Owns where they wait and how they reach storage, which keeps one row a request, so that a record that comes
twice counts once. How a line outlives a killed process is :mod:`hub.spool`'s. Must not know HTTP or tokens'
meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hub.spool import Pace, Spool
from hub.storage.records import UsageRecord
from hub.storage.repositories import Storage

FLUSH_EVERY_S = 0.2
FLUSH_AT_RECORDS = 500


class Meter(Spool[UsageRecord]):
    """Keeps usage records. An async context manager: entering replays what an earlier process left."""

    def __init__(self, storage: Storage, spool_dir: Path) -> None:
        """Keep them.

        Args:
            storage: where records end up.
            spool_dir: where they wait; made if need be.
        """

        async def store(_batch: str, records: Sequence[UsageRecord]) -> None:
            await storage.usage.add(records)

        pace = Pace(every_s=FLUSH_EVERY_S, full=FLUSH_AT_RECORDS, at_once=FLUSH_AT_RECORDS)
        super().__init__(spool_dir, UsageRecord, store, name="usage", pace=pace)
