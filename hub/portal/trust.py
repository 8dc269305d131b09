"""`/trust`: how far each node of this Hub is trusted, for its operators to raise or lower.

Owns these pages. A change says why, and the audit log keeps that; what it means for keys is said beside each
choice before one is made.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response

from hub.effects import of_node
from hub.errors import InvalidInput, NotFound, Outdated
from hub.placement import check_seen, rules_seen
from hub.policy import NodeFacts, RegionTree, TrustClass
from hub.portal.effect_words import effect_words
from hub.portal.node_list import NodePage, read_page
from hub.portal.pages import PortalRoute, field_problem, hub_of, page, see_other
from hub.portal.placement import CHANGED
from hub.portal.presenting import TRUSTS, trust_text
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import Operator, Posted, Visitor
from hub.storage.records import ApiKey, Node

MAX_REASON = 200

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class TrustRow:
    """A node with its trust class."""

    id: str
    name: str
    owner: str
    region: str
    trust: str


@dataclass(frozen=True, slots=True)
class TrustForm:
    """The fields as they stand in the form."""

    trust: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TrustChoice:
    """A class that may be chosen: `words` are its meaning, and what it would mean for keys."""

    label: str
    title: str
    words: str


@router.get("/trust")
async def trust(request: Request, visitor: Operator) -> Response:
    """List the nodes of every organisation with their trust class."""
    known, listed = await read_regions(request), await read_page(request, None)
    owners = await hub_of(request).storage.organisations.names(
        {view.node.organisation_id for view in listed.views}
    )
    saved = await hub_of(request).storage.nodes.get(request.query_params.get("saved", ""))
    return page(
        "trust.html",
        visitor=visitor,
        here="/trust",
        listed=replace(listed, everyone=False),  # of whom is in the path here, not in the question
        rows=_rows(listed, owners, known),
        saved=saved.name if saved else None,
    )


def _rows(listed: NodePage, owners: Mapping[str, str], known: RegionsView) -> list[TrustRow]:
    return [
        TrustRow(
            view.id,
            view.name,
            owners.get(view.node.organisation_id, view.node.organisation_id),
            known.name(view.node.region),
            trust_text(view.node.trust),
        )
        for view in listed.views
    ]


@router.get("/trust/{node_id}")
async def edit(request: Request, visitor: Operator, node_id: str) -> Response:
    """Show a node's class and what each other would mean."""
    node = await _living(request, node_id)
    return await _edit_page(request, visitor, node, TrustForm(node.trust.label if node.trust else ""), {})


@router.post("/trust/{node_id}")
async def change(request: Request, visitor: Operator, form: Posted, node_id: str) -> Response:
    """Raise or lower it."""
    node = await _living(request, node_id)
    typed = TrustForm(form.text("trust"), form.text("reason"))
    seen = form.text("seen")  # one that does not say is judged as an old one
    errors = _reason_problem(typed.reason)
    found = next((kind for kind in TrustClass if kind.label == typed.trust), None)
    if found is None:
        errors["trust"] = "Choose a trust class."
    elif found is node.trust:
        errors["trust"] = "That is its class now. Choose another, or leave it as it is."
    try:
        check_seen(node, seen)
        if found is None or errors:
            return await _edit_page(request, visitor, node, typed, errors)
        keeper = hub_of(request).enrollment
        await keeper.set_trust(node.id, visitor.account, found, reason=typed.reason, seen=seen)
    except Outdated:
        now = await _living(request, node_id)
        return await _edit_page(request, visitor, now, replace(typed, trust=""), {"trust": CHANGED["name"]})
    except InvalidInput as error:
        return await _edit_page(request, visitor, node, typed, field_problem(error))
    return see_other(f"/trust?saved={node.id}")


def _reason_problem(reason: str) -> dict[str, str]:
    if not reason:
        return {"reason": "Say why: whoever reads the audit log later will ask."}
    if len(reason) > MAX_REASON or not reason.isprintable():
        return {"reason": f"Write one line of at most {MAX_REASON} characters."}
    return {}


async def _living(request: Request, node_id: str) -> Node:
    node = await hub_of(request).storage.nodes.get(node_id)
    if node is None or node.revoked_at is not None:
        raise NotFound("node", node_id)
    return node


async def _edit_page(
    request: Request, visitor: Visitor, node: Node, form: TrustForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    owner = await hub.storage.organisations.names({node.organisation_id})
    now = hub.clock()
    keys = [key for key in await hub.storage.keys.list() if key.is_active(now)]
    return page(
        "trust_edit.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/trust",
        node=node,
        seen=rules_seen(node),
        owner=owner.get(node.organisation_id, node.organisation_id),
        region=known.name(node.region),
        current=trust_text(node.trust),
        choices=_choices(node.facts(hub.config.region_authority), keys, known.tree),
        form=form,
        max_reason=MAX_REASON,
        errors=errors,
    )


def _choices(facts: NodeFacts, keys: Sequence[ApiKey], regions: RegionTree) -> list[TrustChoice]:
    found = []
    for kind, title, words in TRUSTS:
        effect = of_node(keys, facts, replace(facts, trust=kind), regions)
        meaning = "It is so now." if kind is facts.trust else " ".join(effect_words(effect, "it"))
        found.append(TrustChoice(kind.label, title, f"{words} {meaning}"))
    return found
