"""`/nodes`: the machines of an organisation, live, and what may reach them.

Owns the list, a node's page and its changes. An operator sees and changes every organisation's nodes: trust
classes and regions are theirs to set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fastapi import APIRouter, Request, Response

from hub.errors import InvalidInput, NotFound, Outdated
from hub.placement import PlacementChange, check_seen, rules_seen
from hub.portal.node_list import NodePage, read_page
from hub.portal.node_models import model_rows
from hub.portal.node_view import NodeView, node_view
from hub.portal.pages import PortalRoute, field_problem, hub_of, install_command, page, see_other
from hub.portal.placement import CHANGED, PlacementForm, machine_view, read_placement, region_hint
from hub.portal.presenting import SHARINGS, TRUSTS, sharing_text, trust_text
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import MayChange, Posted, SignedIn, Visitor
from hub.storage.records import Node

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """A node with the words around it; `owner` only where it is not the visitor's own."""

    view: NodeView
    region: str
    unconfirmed: bool
    trust: str
    sharing: str
    owner: str | None


@router.get("/nodes")
async def nodes(request: Request, visitor: SignedIn) -> Response:
    """List the nodes."""
    found, rows = await _rows(request, visitor)
    return page(
        "nodes.html",
        visitor=visitor,
        here="/nodes",
        listed=found,
        rows=rows,
        may_change=visitor.may_change,
        install_command=install_command(request),
    )


@router.get("/nodes/live")
async def live(request: Request, visitor: SignedIn) -> Response:
    """Return the list's table alone, for pages that keep it fresh."""
    found, rows = await _rows(request, visitor)
    response = page("_node_rows.html", listed=found, rows=rows, install_command=install_command(request))
    response.headers["x-summary"] = quote(found.summary)
    return response


@router.get("/nodes/{node_id}")
async def node(request: Request, visitor: SignedIn, node_id: str) -> Response:
    """Show one node."""
    found = await _visible_node(request, visitor, node_id)
    return await _node_page(request, visitor, found, PlacementForm.of_node(found), {})


@router.post("/nodes/{node_id}")
async def change(request: Request, visitor: MayChange, form: Posted, node_id: str) -> Response:
    """Change a node's name, region, trust class and sharing; they count at once."""
    found, known = await _visible_node(request, visitor, node_id), await read_regions(request)
    if found.revoked_at is not None:
        raise NotFound("node", node_id)
    typed = PlacementForm.of_node(found).typed(form, may_set_trust=visitor.account.is_operator)
    asked, errors = read_placement(typed, known.tree)
    seen = form.text("seen")  # one that does not say is judged as an old one
    try:
        check_seen(found, seen)
        if asked is None:
            return await _node_page(request, visitor, found, typed, errors)
        await hub_of(request).enrollment.place(
            found.id,
            visitor.account,
            PlacementChange(
                name=asked.name,
                region=asked.region,
                says_region="region" in form,
                trust=asked.trust if visitor.account.is_operator else None,
                sharing=asked.sharing,
                seen=seen,
            ),
        )
    except Outdated:
        now = await _visible_node(request, visitor, node_id)
        return await _node_page(request, visitor, now, PlacementForm.of_node(now), CHANGED)
    except InvalidInput as error:
        return await _node_page(request, visitor, found, typed, field_problem(error))
    return see_other(f"/nodes/{found.id}?saved=1")


@router.post("/nodes/{node_id}/drain")
async def drain(request: Request, visitor: MayChange, _form: Posted, node_id: str) -> Response:
    """Give a node no new work."""
    found = await _visible_node(request, visitor, node_id)
    await hub_of(request).enrollment.drain(found.id)
    return see_other(f"/nodes/{found.id}#drain")


@router.post("/nodes/{node_id}/resume")
async def resume(request: Request, visitor: MayChange, _form: Posted, node_id: str) -> Response:
    """Let a node that is on drain have work again."""
    found = await _visible_node(request, visitor, node_id)
    await hub_of(request).enrollment.resume(found.id)
    return see_other(f"/nodes/{found.id}#drain")


@router.get("/nodes/{node_id}/revoke")
async def confirm_revoke(request: Request, visitor: MayChange, node_id: str) -> Response:
    """Ask before a node ends."""
    found = await _visible_node(request, visitor, node_id)
    return page(
        "confirm.html",
        visitor=visitor,
        here="/nodes",
        heading=f"Revoke {found.name}?",
        consequences=(
            "Its connection is cut at once, and requests it is answering fail.",
            "Its credential is worth nothing from then on. Models stay on its disk.",
            "To bring the machine back, run porten login on it and approve it again.",
        ),
        action=f"/nodes/{found.id}/revoke",
        button="Revoke this node",
        back=f"/nodes/{found.id}",
    )


@router.post("/nodes/{node_id}/revoke")
async def revoke(request: Request, visitor: MayChange, _form: Posted, node_id: str) -> Response:
    """End a node."""
    found = await _visible_node(request, visitor, node_id)
    await hub_of(request).enrollment.revoke(found.id)
    return see_other(f"/nodes/{found.id}")


def _wants_all(request: Request, visitor: Visitor) -> bool:
    return visitor.account.is_operator and request.query_params.get("of") == "all"


async def _visible_node(request: Request, visitor: Visitor, node_id: str) -> Node:
    found = await hub_of(request).storage.nodes.get(node_id)
    own = found is not None and found.organisation_id == visitor.organisation.id
    if found is None or not (own or visitor.account.is_operator):
        raise NotFound("node", node_id)
    return found


async def _rows(request: Request, visitor: Visitor) -> tuple[NodePage, list[NodeRow]]:
    known = await read_regions(request)
    found = await read_page(request, None if _wants_all(request, visitor) else visitor.organisation.id)
    names = await _organisation_names(request, [view.node for view in found.views])
    return found, [_row(request, view, known, names, visitor) for view in found.views]


def _row(
    request: Request, view: NodeView, known: RegionsView, names: Mapping[str, str], visitor: Visitor
) -> NodeRow:
    stored = view.node
    confirmed = stored.facts(hub_of(request).config.region_authority).region_confirmed
    is_own = stored.organisation_id == visitor.organisation.id
    return NodeRow(
        view=view,
        region=known.name(stored.region),
        unconfirmed=stored.region is not None and not confirmed,
        trust=trust_text(stored.trust),
        sharing=sharing_text(stored.sharing, names),
        owner=None if is_own else names.get(stored.organisation_id, stored.organisation_id),
    )


async def _organisation_names(request: Request, stored: Sequence[Node]) -> dict[str, str]:
    """Return the names of organisations that these nodes belong to or are shared with."""
    wanted = {node.organisation_id for node in stored}
    for each in stored:
        wanted |= each.sharing.organisations if each.sharing else frozenset()
    return await hub_of(request).storage.organisations.names(wanted)


async def _node_page(
    request: Request, visitor: Visitor, found: Node, form: PlacementForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    now = hub.clock()
    cloned = found.id in hub.clones.quarantined(now)
    expected = found.id in hub.registry.expected()
    session = hub.registry.shown([found.id]).get(found.id)
    view = node_view(found, session, now, quarantined=cloned, expected=expected)
    row = _row(request, view, known, await _organisation_names(request, [found]), visitor)
    return page(
        "node.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/nodes",
        row=row,
        models=model_rows(
            session.models if session and view.is_online else (), view, hub.jobs.latest(found.id)
        ),
        may_give_jobs=visitor.may_change and found.organisation_id == visitor.organisation.id,
        machine=machine_view(found.machine, found.public_key),
        form=form,
        seen=rules_seen(found),
        errors=errors,
        saved=_saved_words(request, row),
        may_change=visitor.may_change,
        may_set_trust=visitor.account.is_operator,
        region_rows=known.rows,
        region_hint=region_hint(hub.config.region_authority, is_operator=visitor.account.is_operator),
        trusts=TRUSTS,
        sharings=SHARINGS,
    )


def _saved_words(request: Request, row: NodeRow) -> str | None:
    if "saved" not in request.query_params:
        return None
    if row.unconfirmed:
        return "The region counts once the Hub's operator confirms it; everything else counts from now on."
    return "It counts from now on. A connected node reconnects within seconds to get its new credential."
