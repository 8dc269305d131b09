"""`/keys`: the keys of an organisation, making one, revoking one.

Owns the key form and the one page that shows a secret. How a key is made is `hub.keys`'s matter, what it
allows is `hub.policy`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from hub.changes import KeyChanged
from hub.errors import InvalidInput, NotFound
from hub.keys import issue_key
from hub.policy import Fleet, Policy, TrustClass, read_policy
from hub.portal.key_form import EXPIRIES, KeyForm, KeyRequest, read_key_form
from hub.portal.key_preview import Preview, preview
from hub.portal.pages import PortalRoute, base_url, field_problem, hub_of, page, see_other
from hub.portal.presenting import FLEETS, TRUSTS, ago_text, fleet_text, trust_text, until_text
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import MayChange, Posted, SignedIn, Visitor
from hub.storage.records import ApiKey

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as the list shows it; `state` is empty while it works."""

    id: str
    name: str
    prefix: str
    fleet: str
    trust: str
    regions: str
    models: str
    state: str
    expires_at: float | None
    expires: str
    last_used_at: float | None
    last_used: str


def key_row(key: ApiKey, names: Mapping[str, str], now: float) -> KeyRow:
    """Describe a key."""
    return KeyRow(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        fleet=fleet_text(key.fleet),
        trust=_least_trust(key),
        regions=", ".join(names.get(code, code) for code in sorted(key.regions)),
        models="all" if key.models is None else ", ".join(sorted(key.models)) or "none",
        state=_state(key, now),
        expires_at=key.expires_at,
        expires=until_text(key.expires_at, now),
        last_used_at=key.last_used_at,
        last_used=ago_text(key.last_used_at, now),
    )


def _least_trust(key: ApiKey) -> str:
    policy = key.policy
    if policy is None or policy.minimum_trust is TrustClass.COMMUNITY:
        return ""
    return trust_text(policy.minimum_trust)


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "Revoked"
    return "" if key.is_active(now) else "Expired"


@router.get("/keys")
async def keys(request: Request, visitor: SignedIn) -> Response:
    """List the keys, with the form for a new one."""
    return await _list_page(request, visitor, KeyForm(), {})


@router.post("/keys")
async def create(request: Request, visitor: MayChange, form: Posted) -> Response:
    """Make a key and show its secret, this once."""
    hub, known = hub_of(request), await read_regions(request)
    asked, errors = read_key_form(form, known.tree, hub.clock())
    if asked is None:
        return await _list_page(request, visitor, KeyForm.of(form), errors)
    try:
        return await _created(request, visitor, asked, known)
    except InvalidInput as error:
        return await _list_page(request, visitor, KeyForm.of(form), field_problem(error))


async def _created(request: Request, visitor: Visitor, asked: KeyRequest, known: RegionsView) -> Response:
    hub = hub_of(request)
    issued = await issue_key(
        hub.storage,
        visitor.organisation.id,
        name=asked.name,
        now=hub.clock(),
        fleet=asked.fleet,
        regions=asked.regions,
        minimum_trust=asked.minimum_trust,
        models=asked.models,
        expires_at=asked.expires_at,
    )
    hub.changes.publish(KeyChanged(issued.key.id))
    return page(
        "key_created.html",
        visitor=visitor,
        here="/keys",
        key=issued.key,
        secret=issued.secret,
        model=_example_model(request, asked.models),
        base_url=base_url(request),
        preview=await _preview(request, visitor, issued.key.policy, known),
    )


@router.get("/keys/preview")
async def key_preview(request: Request, visitor: SignedIn) -> Response:
    """Say what a key with these choices would allow; the form shows it while it is filled in."""
    known = await read_regions(request)
    asked = request.query_params
    policy = read_policy(
        visitor.organisation.id,
        asked.get("fleet", Fleet.OWN),
        [code for code in asked.getlist("regions") if code],
        asked.get("minimum_trust", TrustClass.COMMUNITY.label),
    )
    shown = await _preview(request, visitor, policy, known)
    return JSONResponse({"rule": shown.rule, "matches": shown.matches})


@router.get("/keys/{key_id}/revoke")
async def confirm_revoke(request: Request, visitor: MayChange, key_id: str) -> Response:
    """Ask before a key ends."""
    key = await _own_key(request, visitor, key_id)
    return page(
        "confirm.html",
        visitor=visitor,
        here="/keys",
        heading=f"Revoke {key.name}?",
        consequences=(
            f"Every app that uses {key.prefix}… is refused at once.",
            "This cannot be undone. You can create another key at any time.",
        ),
        action=f"/keys/{key.id}/revoke",
        button="Revoke this key",
        back="/keys",
    )


@router.post("/keys/{key_id}/revoke")
async def revoke(request: Request, visitor: MayChange, _form: Posted, key_id: str) -> Response:
    """End a key."""
    hub = hub_of(request)
    key = await _own_key(request, visitor, key_id)
    with hub.changes.announcing(KeyChanged(key.id)):
        await hub.storage.keys.revoke(key.id, now=hub.clock())
    return see_other(f"/keys?revoked={key.id}")


async def _own_key(request: Request, visitor: Visitor, key_id: str) -> ApiKey:
    key = await hub_of(request).storage.keys.get(key_id)
    if key is None or key.organisation_id != visitor.organisation.id:
        raise NotFound("key", key_id)
    return key


async def _list_page(
    request: Request, visitor: Visitor, form: KeyForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    stored = await hub.storage.keys.list(visitor.organisation.id)
    policy = read_policy(visitor.organisation.id, form.fleet, form.regions, form.minimum_trust)
    return page(
        "keys.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/keys",
        may_change=visitor.may_change,
        keys=[key_row(key, known.names, hub.clock()) for key in stored],
        revoked=_just_revoked(request, stored),
        form=form,
        errors=errors,
        fleets=FLEETS,
        trusts=TRUSTS,
        expiries=EXPIRIES,
        region_rows=known.rows,
        preview=await _preview(request, visitor, policy, known),
        example_model=_example_model(request, None),
    )


def _just_revoked(request: Request, stored: Sequence[ApiKey]) -> str | None:
    asked = request.query_params.get("revoked")
    return next((key.name for key in stored if key.id == asked and key.revoked_at is not None), None)


def _example_model(request: Request, allowed: frozenset[str] | None) -> str:
    names = [spec.id for spec in hub_of(request).catalog]
    if allowed:
        return next((name for name in names if name in allowed), min(allowed))
    return names[0] if names else "model-id"


async def _preview(request: Request, visitor: Visitor, policy: Policy | None, known: RegionsView) -> Preview:
    hub = hub_of(request)
    return preview(
        policy,
        organisation=visitor.organisation.name,
        nodes=await hub.storage.nodes.list(visitor.organisation.id),
        online=hub.registry.snapshot().keys(),
        regions=known.tree,
        region_names=known.names,
        authority=hub.config.region_authority,
    )
