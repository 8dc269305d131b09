"""`/admin/v1/regions`, `/organisations` and `/models`: what the whole Hub shares.

Owns their form on the wire. An operator changes them; others read, of organisations their own.
"""

from typing import Annotated

from fastapi import Query

from hub.api.admin.callers import Caller, Operator, TheHub
from hub.api.admin.route import admin_router
from hub.api.admin.wire import Limits, Name, Page, PageSize, RegionCode, Told, Wire, id_path, page, told
from hub.changes import RegionsChanged
from hub.errors import NotFound
from hub.identifiers import checked_name
from hub.operations import add_region
from hub.storage.records import Organisation, Region

router = admin_router()

OrganisationPath = Annotated[str, id_path("org")]


class RegionShown(Wire):
    """One code of the tree; `parent` is null for a root."""

    code: RegionCode
    parent: RegionCode | None = None
    name: Name


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
    shown = [RegionShown(code=each.code, parent=each.parent, name=each.name) for each in found]
    return Page[RegionShown](data=shown, next=None)


@router.post("/regions", status_code=201)
async def create_region(hub: TheHub, _caller: Operator, wish: RegionShown) -> RegionShown:
    """Add a region. It is never removed or moved: keys and credentials name it."""
    added = await add_region(hub.storage, Region(wish.code, wish.parent, wish.name))
    hub.changes.publish(RegionsChanged())
    return RegionShown(code=added.code, parent=added.parent, name=added.name)


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


def _shown(found: Organisation) -> OrganisationShown:
    return OrganisationShown(
        id=found.id, name=found.name, limits=Limits.of(found.limits), created_at=told(found.created_at)
    )
