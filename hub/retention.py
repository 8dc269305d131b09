"""What the Hub does about its stored things by itself: seals the audit log, deletes what is over or too old.

Owns the round and its pace. What is deleted how is storage's matter. Must not know SQL.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from hub.config import HubConfig
from hub.errors import StorageUnavailable
from hub.sealing import Sealer
from hub.storage.repositories import Storage

log = logging.getLogger(__name__)

LOOK_S = 60.0
DAY_S = 86_400.0


class Retention:
    """The rounds.

    Args:
        storage: what is kept.
        sealer: signs checkpoints.
        config: how long what is kept.
        clock: UTC seconds since the epoch.
    """

    def __init__(
        self, storage: Storage, sealer: Sealer, config: HubConfig, clock: Callable[[], float]
    ) -> None:
        self._storage = storage
        self._sealer = sealer
        self._config = config
        self._clock = clock

    async def run(self) -> None:
        """A round each minute, for ever; one that fails is made up for by the next."""
        while True:
            try:
                await self.look()
            except (StorageUnavailable, SQLAlchemyError) as error:
                log.warning("stored things were not tidied up", extra=_fields(error))
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """One round."""
        now, storage = self._clock(), self._storage
        await storage.erasure.expired(now=now)
        if (days := self._config.usage_retention_days) is not None:
            await storage.erasure.usage(before=now - days * DAY_S)
        if (days := self._config.audit_retention_days) is not None:
            # By whole days: each pruning is an event itself, and one a day is enough.
            before = (now - days * DAY_S) // DAY_S * DAY_S
            await self._sealer.prune(storage.audit, before=before)
            await storage.audit.forget_unused(before)
        await self._sealer.seal_if_due(storage.audit)


def _fields(error: Exception) -> dict[str, str]:
    return {"event": "retention.failed", "error": repr(error)}
