"""Sealing the audit log with the Hub's key, now and then.

Owns when a checkpoint is due, and that each one also goes to the structured log, where a collector elsewhere
can keep it. Must not know SQL.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.audit import Checkpoint
from hub.checkpoints import sign_checkpoint
from hub.storage.audit import Audit

log = logging.getLogger(__name__)

EVERY_EVENTS = 1000
EVERY_S = 86_400.0
PRUNED_AT_ONCE = 10_000
"""Events that go in one transaction: others write in between."""


class Sealer:
    """Signs as one Hub.

    Args:
        key: the Hub's.
        hub_id: the Hub's.
        clock: UTC seconds since the epoch.
    """

    def __init__(self, key: Ed25519PrivateKey, hub_id: str, clock: Callable[[], float]) -> None:
        self._key = key
        self._hub_id = hub_id
        self._clock = clock

    async def seal(self, audit: Audit) -> str | None:
        """Make a checkpoint of the log as it is now; its token, ``None`` where the log is empty."""
        made = await audit.seal(lambda sequence, digest: self._signed(sequence, digest, root=False))
        if made is None:
            return None
        _tell(*made)
        return made[1]

    async def seal_if_due(self, audit: Audit) -> None:
        """Make one where enough has happened, or enough time passed since something happened."""
        (sequence, _), (sealed, sealed_ms) = await audit.head(), await audit.last_checkpoint()
        age_s = self._clock() - sealed_ms / 1000
        if sequence - sealed >= EVERY_EVENTS or (sequence > sealed and age_s >= EVERY_S):
            await self.seal(audit)

    async def prune(self, audit: Audit, *, before: float) -> None:
        """Delete events of before this time, UTC seconds; a root checkpoint stays in their place."""
        upto, _ = await audit.head()  # not the events that tell of the pruning itself
        while True:
            pruned = await audit.prune(
                round(before * 1000),
                lambda sequence, digest: self._signed(sequence, digest, root=True),
                upto=upto,
                limit=PRUNED_AT_ONCE,
            )
            if pruned is None:
                return
            fields = {"event": "audit.pruned", "sequence": pruned[0], "token": pruned[1]}
            log.info("audit log pruned", extra=fields)

    def _signed(self, sequence: int, digest: str, *, root: bool) -> tuple[Checkpoint, str]:
        checkpoint = Checkpoint(self._hub_id, sequence, digest, round(self._clock() * 1000), root)
        return checkpoint, sign_checkpoint(self._key, checkpoint)


def _tell(checkpoint: Checkpoint, token: str) -> None:
    fields = {"event": "audit.checkpoint", "sequence": checkpoint.sequence, "hash": checkpoint.hash}
    log.info("audit log sealed", extra={**fields, "token": token})
