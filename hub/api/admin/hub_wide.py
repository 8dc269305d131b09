"""`/admin/v1/regions`, `/organisations` and `/models`: what the whole Hub shares.

Owns their form on the wire. An operator changes them; others read, of organisations their own.
"""

from typing import Annotated

from fastapi import Path, Query, Response

from hub.api.admin.callers import Caller, Operator, TheHub
from hub.api.admin.route import admin_router
from hub.api.admin.wire import (
    REGION_CODE,
    Limits,
    Name,
    Page,
    PageSize,
    RegionCode,
    Told,
    Wire,
    id_path,
    page,
    told,
)
from hub.changes import RegionsChanged
from hub.errors import NotFound
from hub.identifiers import checked_name
from hub.operations import REGION_CODE_LIMIT, add_region
from hub.storage.records import Organisation, Region
from hub.storage.regions import RegionChange

router = admin_router()

OrganisationPath = Annotated[str, id_path("org")]
RegionPath = Annotated[str, Path(pattern=REGION_CODE, max_length=REGION_CODE_LIMIT, examples=["eu-de"])]


class RegionShown(Wire):
    """One code of the tree; `parent` is null for a root."""

    code: RegionCode
    parent: RegionCode | None = None
    name: Name


class RegionEdit(Wire):
    """What is to be another; what is not said stays. A `parent` of null is the top of the tree."""

    parent: RegionCode | None = None
    name: Name | None = None


class OrganisationShown(Wire):
    """Who owns nodes and keys; `limits` are over all of its keys together."""

    id: str
    name: str
    limits: Limits
    created_at: Told


class OrganisationWish(Wire):
    """An organisation to be made."""

    name: Name


class OrganisationChange(Wire):
    """An organisation's limits, all of them: one that is not said is none."""

    limits: Limits


class ModelShown(Wire):
    """One model of the catalog; `ready` says whether it is loaded on a node of the token's organisation."""

    id: str
    name: str
    context_length: int
    capabilities: list[str]
    size_bytes: int | None
    license: str
    ready: bool


@router.get("/regions")
async def list_regions(hub: TheHub, _caller: Caller) -> Page[RegionShown]:
    """List every region, by code."""
    found = await hub.storage.regions.list()
    return Page[RegionShown](data=[_region(each) for each in found], next=None)


@router.post("/regions", status_code=201)
async def create_region(hub: TheHub, _caller: Operator, wish: RegionShown) -> RegionShown:
    """Add a region."""
    added = await add_region(hub.storage, Region(wish.code, wish.parent, wish.name))
    hub.changes.publish(RegionsChanged())
    return _region(added)


@router.patch("/regions/{code}")
async def edit_region(hub: TheHub, _caller: Operator, code: RegionPath, change: RegionEdit) -> RegionShown:
    """Rename a region, or let it lie somewhere else, with all that lies in it.

    A move counts at once: the nodes in it leave the reach of keys for the regions they lay in, and come into
    that of keys for those they lie in then.
    """
    said = RegionChange()
    if "parent" in change.model_fields_set:
        said["parent"] = change.parent
    if change.name is not None:
        said["name"] = checked_name(change.name)
    with hub.changes.announcing(RegionsChanged()):
        changed = await hub.storage.regions.change(code, **said)
    return _region(changed)


@router.delete("/regions/{code}", status_code=204, response_class=Response)
async def delete_region(hub: TheHub, _caller: Operator, code: RegionPath) -> Response:
    """Remove a region that no node, key, join token or other region names."""
    with hub.changes.announcing(RegionsChanged()):
        await hub.storage.regions.remove(code)
    return Response(status_code=204)


@router.get("/organisations")
async def list_organisations(
    hub: TheHub, caller: Caller, after: str | None = Query(None, max_length=100), limit: PageSize = 50
) -> Page[OrganisationShown]:
    """List organisations: an operator's token all of them, others their own."""
    if caller.is_operator:
        found = await hub.storage.organisations.page(after=after, limit=limit + 1)
    else:
        own = await hub.storage.organisations.get(caller.organisation_id)
        found = [own] if own is not None and (after is None or own.id > after) else []
    return page(found, limit, _shown, lambda each: each.id)


@router.post("/organisations", status_code=201)
async def create_organisation(hub: TheHub, _caller: Operator, wish: OrganisationWish) -> OrganisationShown:
    """Make an organisation; its nodes and keys are apart from every other's."""
    made = await hub.storage.organisations.create(checked_name(wish.name), now=hub.clock())
    return _shown(made)


@router.get("/organisations/{organisation_id}")
async def get_organisation(
    hub: TheHub, caller: Caller, organisation_id: OrganisationPath
) -> OrganisationShown:
    """Show one organisation."""
    found = await hub.storage.organisations.get(organisation_id)
    if found is None or not (caller.is_operator or found.id == caller.organisation_id):
        raise NotFound("organisation", organisation_id)
    return _shown(found)


@router.patch("/organisations/{organisation_id}")
async def edit_organisation(
    hub: TheHub, _caller: Operator, organisation_id: OrganisationPath, change: OrganisationChange
) -> OrganisationShown:
    """Set what all keys of an organisation may use together. A running Hub obeys within a second."""
    await hub.storage.organisations.set_limits(organisation_id, change.limits.allowance)
    found = await hub.storage.organisations.get(organisation_id)
    if found is None:
        raise NotFound("organisation", organisation_id)
    return _shown(found)


@router.get("/models")
async def list_models(hub: TheHub, caller: Caller) -> Page[ModelShown]:
    """List the catalog."""
    ready = hub.registry.ready_models(hub.registry.own(caller.organisation_id))
    shown = [
        ModelShown(
            id=spec.id,
            name=spec.name,
            context_length=spec.context_length,
            capabilities=sorted(spec.capabilities),
            size_bytes=spec.size_bytes,
            license=spec.license,
            ready=spec.id in ready,
        )
        for spec in hub.catalog
    ]
    return Page[ModelShown](data=shown, next=None)


def _region(found: Region) -> RegionShown:
    return RegionShown(code=found.code, parent=found.parent, name=found.name)


def _shown(found: Organisation) -> OrganisationShown:
    return OrganisationShown(
        id=found.id, name=found.name, limits=Limits.of(found.limits), created_at=told(found.created_at)
    )
