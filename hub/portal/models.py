"""`/models`: what an organisation's nodes offer, what the catalog has beside, and each model node by node.

Owns the list and a model's page. What it counts is what a key for *My nodes only* may use, asked of the index
that requests are routed by: a page costs the same however many nodes there are. What may be asked of a node
is `hub.portal.node_models`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.api.request import MAX_MODEL_CHARACTERS
from hub.composition import Hub
from hub.policy import Policy
from hub.portal.errors import PageNotFound
from hub.portal.model_view import CAPABILITIES, ModelView, matches, model_view
from hub.portal.node_models import ModelRow, model_rows
from hub.portal.node_view import node_view
from hub.portal.pages import PortalRoute, hub_of, install_command, page
from hub.portal.sessions import SignedIn
from hub.registry import LiveNode
from hub.storage.records import Node
from hub.tallies import Offered, Tally
from tunnel.messages import ModelStatus

LOOKED_AT = 16
"""Nodes of each model of whose word the list makes something; all others are counted."""
MOST_MODELS = 300
MOST_NODES = 50

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node of a model's page; `condition` says what keeps it from being plainly online."""

    id: str
    name: str
    region: str | None
    condition: str
    model: ModelRow


@router.get("/models")
async def list_models(request: Request, visitor: SignedIn) -> Response:
    """List the models, those that are nearest to an answer first."""
    hub, asked = hub_of(request), request.query_params
    text = asked.get("find", "").strip()[:MAX_MODEL_CHARACTERS]
    capability = next((each for each in CAPABILITIES if each == asked.get("can")), "")
    every = _views(hub, visitor.organisation.id)
    found = [view for view in every if matches(view, text, capability)]
    here = [view for view in found if view.nodes]
    return page(
        "models.html",
        visitor=visitor,
        here="/models",
        here_now=here[:MOST_MODELS],
        hidden=max(len(here) - MOST_MODELS, 0),
        away=[view for view in found if not view.nodes][:MOST_MODELS],
        any_here=any(view.nodes for view in every),
        has_nodes=any(hub.registry.own(visitor.organisation.id)),
        text=text,
        capability=capability,
        capabilities=CAPABILITIES,
        may_change=visitor.may_change,
        install_command=install_command(request),
    )


def _views(hub: Hub, organisation_id: str) -> list[ModelView]:
    """Every model that the organisation's nodes offer or the catalog has."""
    offered = list(hub.registry.chooser.offered(Policy(organisation_id), most=LOOKED_AT))
    views = [
        model_view(each.model, hub.catalog.get(each.model), each.tally, _reports(hub, each))
        for each in offered
    ]
    there = {each.model for each in offered}
    views += [model_view(spec.id, spec, Tally(), ()) for spec in hub.catalog if spec.id not in there]
    return sorted(views, key=lambda view: (not view.nodes, view.traits.name.casefold(), view.id))


def _reports(hub: Hub, offered: Offered) -> list[ModelStatus]:
    reports = (hub.registry.model_status(node_id, offered.model) for node_id in offered.node_ids)
    return [report for report in reports if report is not None]


@router.get("/models/{model:path}")
async def show_model(request: Request, visitor: SignedIn, model: str) -> Response:
    """Show one model, node by node."""
    hub = hub_of(request)
    spec = hub.catalog.get(model)
    policy = Policy(visitor.organisation.id)
    offered = (
        next(hub.registry.chooser.offered(policy, model=model, most=MOST_NODES), None) if model else None
    )
    if spec is None and offered is None:
        raise PageNotFound("No node of yours offers a model of that name, and the catalog has none.")
    reports = [] if offered is None else _reports(hub, offered)
    node_ids = () if offered is None else offered.node_ids
    return page(
        "model.html",
        visitor=visitor,
        here="/models",
        view=model_view(model, spec, offered.tally if offered else Tally(), reports),
        rows=await _rows(hub, model, node_ids),
        may_change=visitor.may_change,
        chats="chat" in (spec.capabilities if spec else reports[0].capabilities if reports else ()),
    )


async def _rows(hub: Hub, model: str, node_ids: Sequence[str]) -> list[NodeRow]:
    """The nodes of a model in the order given, each with what may be asked of it."""
    shown = hub.registry.shown(node_ids)
    stored = await hub.storage.nodes.many(node_ids)
    rows = (_row(hub, model, node, shown.get(node.id)) for node in stored)
    return [row for row in rows if row is not None]


def _row(hub: Hub, model: str, node: Node, live: LiveNode | None) -> NodeRow | None:
    offers = [each for each in live.models if each.model == model] if live else []
    view = node_view(node, live, hub.clock())
    found = model_rows(offers, view, hub.jobs.latest(node.id))
    condition = "" if view.state == "online" else view.state_words
    return NodeRow(node.id, node.name, node.region, condition, found[0]) if found else None
