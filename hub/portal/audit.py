"""`/audit`: what was done and refused, the newest first.

Owns the page's filter and its paging. Who may read what is said here; how an event reads is
:mod:`hub.portal.audit_view`'s.
"""

from urllib.parse import urlencode

from fastapi import APIRouter, Request, Response

from hub.audit import ids_in
from hub.errors import NotAllowed
from hub.log_places import LogPlaces
from hub.portal.audit_view import ACTIONS, audit_rows, known_actions
from hub.portal.pages import PortalRoute, hub_of, page
from hub.portal.sessions import SignedIn, Visitor

PAGE = 50

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@router.get("/audit")
async def audit(request: Request, visitor: SignedIn) -> Response:
    """Show a page of events: an organisation's own, an operator all of them."""
    if not visitor.account.role.may_audit:
        raise NotAllowed("Your role does not read the audit log")
    stored = hub_of(request).storage.audit
    actions = known_actions(request.query_params.getlist("action"))
    places = LogPlaces(hub_of(request).key)
    before = places.open(request.query_params.get("before", ""))  # of what is no place, the newest
    mine = _organisation(visitor)
    events = await stored.page(mine, before=before, actions=actions, limit=PAGE + 1)
    shown = events[:PAGE]
    names = await stored.names(ids_in(shown), mine)
    return page(
        "audit.html",
        visitor=visitor,
        here="/audit",
        rows=audit_rows(shown, names, visitor.account),
        groups=ACTIONS,
        chosen=actions[0] if actions else "",
        older=_address(actions, places.seal(shown[-1].sequence)) if len(events) > PAGE else None,
        newest=None if before is None else _address(actions, None),
    )


def _organisation(visitor: Visitor) -> str | None:
    return None if visitor.account.is_operator else visitor.organisation.id


def _address(actions: list[str], before: str | None) -> str:
    asked = [("action", action) for action in actions]
    asked += [] if before is None else [("before", before)]
    return f"/audit?{urlencode(asked)}" if asked else "/audit"
