"""`/admin/v1/audit`: what was done and refused, page by page or whole.

Owns who reads what: an operator everything, others what their organisation did. The log and its check are
`hub.audit`'s.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import Query
from fastapi.responses import StreamingResponse

from hub.api.admin.callers import Reviewer, TheHub
from hub.api.admin.route import admin_router
from hub.api.admin.wire import PageSize, Told, Wire, told
from hub.audit import Event, ids_in
from hub.log_export import own_log, whole_log
from hub.log_places import PLACE, LogPlaces
from hub.sealing import Sealer

router = admin_router()

Action = Annotated[str, Query(pattern="^[a-z_]+[.][a-z_]+$", max_length=64)]


class AuditEvent(Wire):
    """One event; `hash` covers all of it and the event before it.

    Its place in the chain is an operator's to see (null for others): the gaps would tell what others do.
    """

    sequence: int | None
    time: Told
    organisation: str | None
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    previous_hash: str | None
    hash: str


class AuditPage(Wire):
    """Events, the newest first. `names` are what ids stand for; what was erased has none."""

    data: list[AuditEvent]
    next: str | None
    names: dict[str, str]


@router.get("/audit")
async def list_audit(
    hub: TheHub,
    caller: Reviewer,
    action: Annotated[list[Action] | None, Query(max_length=20, description="Only these.")] = None,
    after: Annotated[str | None, Query(pattern=PLACE, description="`next` of a page.")] = None,
    limit: PageSize = 50,
) -> AuditPage:
    """List events, the newest first: an operator's token all of them, others their organisation's."""
    mine = None if caller.is_operator else caller.organisation_id
    places = LogPlaces(hub.key)
    before = None if after is None else places.open(after) or 0  # nothing comes after a place that is none
    found = await hub.storage.audit.page(mine, before=before, actions=action or (), limit=limit + 1)
    kept = found[:limit]
    return AuditPage(
        data=[_shown(event, with_place=caller.is_operator) for event in kept],
        next=places.seal(kept[-1].sequence) if len(found) > limit else None,
        names=await hub.storage.audit.names(ids_in(kept), mine),
    )


@router.get(
    "/audit/export",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/jsonl": {}}}},
)
async def export_audit(hub: TheHub, caller: Reviewer) -> StreamingResponse:
    """Write the log as JSON lines.

    For an operator's token it is whole, as `porten-hub audit verify --file` checks it; for others it is their
    organisation's events, the newest first, without their places in the chain.
    """
    audit = hub.storage.audit
    if caller.is_operator:
        sealer = Sealer(hub.key, hub.hub_id, hub.clock)
        lines = whole_log(audit, sealer, hub.hub_id, hub.key.public_key())
    else:
        lines = own_log(audit, caller.organisation_id)
    return StreamingResponse(_ended(lines), media_type="application/jsonl")


async def _ended(lines: AsyncIterator[str]) -> AsyncIterator[bytes]:
    async for line in lines:
        yield line.encode() + b"\n"


def _shown(event: Event, *, with_place: bool) -> AuditEvent:
    return AuditEvent(
        sequence=event.sequence if with_place else None,
        time=told(event.time_ms / 1000),
        organisation=event.organisation_id,
        actor=event.actor,
        action=event.action,
        subject=event.subject,
        details=event.facts(),
        previous_hash=event.previous_hash if with_place else None,
        hash=event.hash,
    )
