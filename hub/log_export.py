"""The audit log as JSON lines: the whole of it with all that a check offline needs, or an organisation's own.

Owns which events an export holds and in what order. The lines themselves are :mod:`hub.evidence`'s. Must not
know who asks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from hub.evidence import export_event, export_head, export_own_event
from hub.sealing import Sealer
from hub.storage.audit import Audit

_PAGE = 1000


async def whole_log(
    audit: Audit, sealer: Sealer, hub_id: str, public_key: Ed25519PublicKey
) -> AsyncIterator[str]:
    """Every event up to now, the oldest first, after a checkpoint that is made for this export."""
    await sealer.seal(audit)
    last = (await audit.head())[0]
    for line in export_head(hub_id, public_key, await audit.checkpoints()):
        yield line
    async for event in audit.chain():
        if event.sequence > last:
            return  # written since the checkpoint that this export ends with
        yield export_event(event)


async def own_log(audit: Audit, organisation_id: str) -> AsyncIterator[str]:
    """An organisation's own events, the newest first: those between them are others', so no chain."""
    before: int | None = None
    while events := await audit.page(organisation_id, before=before, limit=_PAGE):
        for event in events:
            yield export_own_event(event)
        before = events[-1].sequence
