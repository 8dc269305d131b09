"""`/regions`: the operator's tree, and the nodes that wait for their word on where they stand.

Owns these pages. What a change means for keys is said before it is made, counted by `hub.effects`; nothing of
other organisations but numbers and their nodes' names is shown, which operators see anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import APIRouter, Request, Response

from hub.changes import RegionsChanged
from hub.composition import Hub
from hub.effects import of_move, of_node, of_regions
from hub.errors import AlreadyExists, InvalidInput, NotFound
from hub.identifiers import checked_name
from hub.operations import REGION_CODE_LIMIT, add_region
from hub.policy import RegionAuthority, RegionTree
from hub.portal.effect_words import effect_words, reach_words
from hub.portal.errors import FormRefused
from hub.portal.forms import Form
from hub.portal.pages import PortalRoute, field_problem, hub_of, page, see_other
from hub.portal.presenting import ago_text, counted
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import Operator, Posted, Visitor
from hub.storage.records import ApiKey, Node, Region
from hub.storage.regions import named_by

MOST_WAITING = 100

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class RegionForm:
    """The fields of a region as they stand in the form."""

    code: str = ""
    name: str = ""
    parent: str = ""

    @classmethod
    def of(cls, form: Form) -> "RegionForm":
        """Keep what was typed."""
        return cls(form.text("code"), form.text("name"), form.text("parent"))


@dataclass(frozen=True, slots=True)
class TreeRow:
    """A region of the tree: `nodes` stand in it itself, `keys` take a node that does."""

    code: str
    name: str
    indent: int
    nodes: str
    keys: str


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """A node whose region waits for confirmation."""

    id: str
    name: str
    owner: str
    region: str
    address: str | None
    joined: str


@router.get("/regions")
async def regions(request: Request, visitor: Operator) -> Response:
    """Show the tree, and what waits for a word."""
    return await _tree_page(request, visitor, RegionForm(), {})


@router.post("/regions")
async def add(request: Request, visitor: Operator, form: Posted) -> Response:
    """Add a region."""
    hub, typed = hub_of(request), RegionForm.of(form)
    try:
        await add_region(hub.storage, Region(typed.code, typed.parent or None, typed.name or typed.code))
    except InvalidInput as error:
        return await _tree_page(request, visitor, typed, field_problem(_named(error)))
    except AlreadyExists:
        return await _tree_page(
            request, visitor, typed, {"code": f"There is a region {typed.code!r} already."}
        )
    hub.changes.publish(RegionsChanged())
    return see_other(f"/regions?saved={typed.code}")


def _named(error: InvalidInput) -> InvalidInput:
    """What commands call the region is the form's code."""
    return InvalidInput("code", error.message) if error.field == "region" else error


async def _tree_page(
    request: Request, visitor: Visitor, form: RegionForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    waiting = await _waiting(hub, known)
    return page(
        "regions.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/regions",
        rows=_rows(known, await _active_keys(hub), await hub.storage.nodes.counts_by_region()),
        region_rows=known.rows,
        waiting=waiting,
        has_more=len(waiting) == MOST_WAITING,
        owners_decide=hub.config.region_authority is RegionAuthority.OWNER,
        form=form,
        errors=errors,
        code_limit=REGION_CODE_LIMIT,
        saved=known.names.get(request.query_params.get("saved", "")),
    )


def _rows(known: RegionsView, keys: Sequence[ApiKey], counts: Mapping[str, tuple[int, int]]) -> list[TreeRow]:
    rows, reaches = [], of_regions(keys, known.tree)
    for row in known.rows:
        sure, unsure = counts.get(row.code, (0, 0))
        nodes = counted(sure, "node") if sure else "" if unsure else "none"
        parts = [part for part in (nodes, f"{unsure} unconfirmed" if unsure else "") if part]
        words = reach_words(reaches[row.code])
        rows.append(TreeRow(row.code, row.name, row.indent, ", ".join(parts), words))
    return rows


async def _active_keys(hub: Hub) -> list[ApiKey]:
    now = hub.clock()
    return [key for key in await hub.storage.keys.list() if key.is_active(now)]


async def _waiting(hub: Hub, known: RegionsView) -> list[WaitingRow]:
    if hub.config.region_authority is RegionAuthority.OWNER:
        return []
    found = await hub.storage.nodes.unconfirmed(limit=MOST_WAITING)
    owners = await hub.storage.organisations.names({node.organisation_id for node in found})
    live = hub.registry.shown([node.id for node in found])
    return [
        WaitingRow(
            node.id,
            node.name,
            owners.get(node.organisation_id, node.organisation_id),
            known.name(node.region),
            live[node.id].remote_address if node.id in live else None,
            ago_text(node.created_at, hub.clock()),
        )
        for node in found
    ]


@router.get("/regions/{code}")
async def edit(request: Request, visitor: Operator, code: str) -> Response:
    """Show a region, to change or remove."""
    region = await _region(request, code)
    return await _edit_page(
        request, visitor, region, RegionForm(region.code, region.name, region.parent or ""), {}
    )


@router.post("/regions/{code}")
async def change(request: Request, visitor: Operator, form: Posted, code: str) -> Response:
    """Rename a region; let it lie elsewhere once what that means was shown."""
    hub, region, typed = hub_of(request), await _region(request, code), RegionForm.of(form)
    parent = typed.parent or None
    try:
        name = checked_name(typed.name)
        if parent != region.parent and form.text("shown") != "yes":
            return await _move_question(request, visitor, region, parent, name)
        await hub.storage.regions.change(code, parent=parent, name=name)
    except InvalidInput as error:
        return await _edit_page(request, visitor, region, typed, field_problem(error))
    hub.changes.publish(RegionsChanged())
    return see_other(f"/regions?saved={code}")


async def _move_question(
    request: Request, visitor: Visitor, region: Region, parent: str | None, name: str
) -> Response:
    """Say what it means for keys that a region lies elsewhere, and ask."""
    hub, known = hub_of(request), await read_regions(request)
    if parent is not None and parent not in known.tree:
        raise InvalidInput("parent", f"there is no region {parent!r} on this Hub")
    if parent is not None and known.tree.contains(region.code, parent):
        raise InvalidInput("parent", "lies in the region itself")
    after = RegionTree({**known.tree.parents, region.code: parent})
    effect = of_move(await _active_keys(hub), region.code, known.tree, after)
    inside = sum(known.tree.contains(region.code, code) for code in known.names) - 1
    where = "at the top of the tree" if parent is None else f"in {known.name(parent)}"
    also = f" {counted(inside, 'region')} in it {'goes' if inside == 1 else 'go'} along." if inside else ""
    return page(
        "confirm.html",
        visitor=visitor,
        here="/regions",
        heading=f"Let {region.name} lie {where}?",
        consequences=(
            f"{region.name} then lies {where}, no longer {_where(known, region)}.{also}",
            *effect_words(effect, "nodes there"),
        ),
        action=f"/regions/{region.code}",
        fields={"name": name, "parent": parent or "", "shown": "yes"},
        button="Move the region",
        tone="button-main",
        keep="Leave it",
        back=f"/regions/{region.code}",
    )


def _where(known: RegionsView, region: Region) -> str:
    return "at the top of the tree" if region.parent is None else f"in {known.name(region.parent)}"


@router.get("/regions/{code}/remove")
async def confirm_remove(request: Request, visitor: Operator, code: str) -> Response:
    """Ask before a region is removed."""
    region = await _region(request, code)
    if named_by(await hub_of(request).storage.regions.uses(code)):
        return see_other(f"/regions/{code}")
    return page(
        "confirm.html",
        visitor=visitor,
        here="/regions",
        heading=f"Remove {region.name}?",
        consequences=(
            "No node, no key and no other region names it, so nothing changes for requests.",
            "Receipts and usage that name it keep its code. Add the same code again only for the same place.",
        ),
        action=f"/regions/{code}/remove",
        button="Remove this region",
        back=f"/regions/{code}",
    )


@router.post("/regions/{code}/remove")
async def remove(request: Request, visitor: Operator, _form: Posted, code: str) -> Response:
    """Remove a region that nothing names."""
    hub, region = hub_of(request), await _region(request, code)
    try:
        await hub.storage.regions.remove(code)
    except InvalidInput as error:
        form = RegionForm(region.code, region.name, region.parent or "")
        return await _edit_page(request, visitor, region, form, field_problem(error))
    hub.changes.publish(RegionsChanged())
    return see_other("/regions")


async def _region(request: Request, code: str) -> Region:
    found = [region for region in await hub_of(request).storage.regions.list() if region.code == code]
    if not found:
        raise NotFound("region", code)
    return found[0]


async def _edit_page(
    request: Request, visitor: Visitor, region: Region, form: RegionForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    uses = await hub.storage.regions.uses(region.code)
    return page(
        "region_edit.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/regions",
        region=region,
        form=form,
        errors=errors,
        parents=[row for row in known.rows if not known.tree.contains(region.code, row.code)],
        reach=reach_words(of_regions(await _active_keys(hub), known.tree)[region.code]),
        uses=named_by(uses),
    )


@router.get("/nodes/{node_id}/region")
async def confirm_place(request: Request, visitor: Operator, node_id: str) -> Response:
    """Say what it means that a node's region counts, and ask."""
    hub, known, node = hub_of(request), await read_regions(request), await _waiting_node(request, node_id)
    confirmed = replace(node, region_confirmed=True)
    effect = of_node(await _active_keys(hub), node.facts(), confirmed.facts(), known.tree)
    live = hub.registry.shown([node.id]).get(node.id)
    address = f"It is connected from {live.remote_address}." if live else "It is not connected now."
    return page(
        "confirm.html",
        visitor=visitor,
        here="/regions",
        heading=f"Does {node.name} stand in {known.name(node.region)}?",
        consequences=(
            f"Its owner says so. {address} Confirm it only if you know it.",
            *effect_words(effect, "it"),
        ),
        action=f"/nodes/{node.id}/region",
        fields={"region": node.region or ""},
        button=f"Confirm {known.name(node.region)}",
        tone="button-main",
        keep="Not yet",
        back="/regions",
    )


@router.post("/nodes/{node_id}/region")
async def confirm(request: Request, visitor: Operator, form: Posted, node_id: str) -> Response:
    """Confirm a node's region, the one that was shown."""
    node = await _waiting_node(request, node_id)
    try:
        await hub_of(request).enrollment.confirm_region(node.id, visitor.account, form.text("region"))
    except InvalidInput as error:
        if error.field == "region":  # another by now: asked anew
            return see_other(f"/nodes/{node.id}/region")
        raise FormRefused(f"Of this node, {error.message}.") from error
    return see_other("/regions")


async def _waiting_node(request: Request, node_id: str) -> Node:
    node = await hub_of(request).storage.nodes.get(node_id)
    if node is None or node.revoked_at is not None or node.region is None:
        raise NotFound("node", node_id)
    return node
