"""`/keys`: the keys of an organisation, making one, revoking one.

Owns the list and the one page that shows a secret. How a key is made is `hub.keys`'s matter, what it allows
is `hub.policy`'s; changing one is `hub.portal.key_edit`'s.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from hub.changes import KeyChanged
from hub.errors import InvalidInput, NotFound
from hub.keys import IssuedKey, issue_key
from hub.policy import Fleet, Policy, TrustClass, read_policy
from hub.portal.charts import BudgetView, budget_view, day_start
from hub.portal.key_form import EXPIRIES, LIMITS, KeyForm, KeyRequest, read_key_form
from hub.portal.key_preview import Preview, preview
from hub.portal.pages import PortalRoute, base_url, field_problem, hub_of, page, see_other
from hub.portal.presenting import (
    DAY_S,
    FLEETS,
    TRUSTS,
    ago_text,
    fleet_text,
    limit_words,
    trust_text,
    until_text,
)
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import MayChange, Posted, SignedIn, Visitor
from hub.storage.records import ApiKey, UsageSum
from hub.storage.rollups import By

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as the list shows it; `state` is empty while it works.

    `previous` is its secret before the last rotation, while that works too.
    """

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
    limits: tuple[str, ...]
    today: UsageSum | None
    budget: BudgetView | None
    previous: "PreviousSecret | None"


@dataclass(frozen=True, slots=True)
class PreviousSecret:
    """The secret that a rotation left, for as long as it works."""

    prefix: str
    ends_at: float
    ends: str
    last_used: str


def key_row(
    key: ApiKey,
    names: Mapping[str, str],
    now: float,
    today: Mapping[str, UsageSum],
    used: Callable[[str, float], int],
) -> KeyRow:
    """Describe a key.

    Args:
        key: the key.
        names: names of regions by code.
        now: UTC seconds since the epoch.
        today: the day's usage by key.
        used: gives the month's tokens of a key.
    """
    budget = key.limits.monthly_tokens
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
        limits=limit_words(key.limits),
        today=today.get(key.id),
        budget=None if budget is None else budget_view("this month", used(key.id, now), budget),
        previous=_previous(key, now),
    )


def _previous(key: ApiKey, now: float) -> PreviousSecret | None:
    ends_at = key.previous_expires_at
    if ends_at is None or not key.is_active(now) or not key.has_overlap(now):
        return None
    return PreviousSecret(
        key.previous_prefix or "", ends_at, until_text(ends_at, now), ago_text(key.previous_used_at, now)
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
        limits=asked.limits,
    )
    hub.changes.publish(KeyChanged(issued.key.id))
    return await secret_page(request, visitor, issued, known)


async def secret_page(
    request: Request, visitor: Visitor, issued: IssuedKey, known: RegionsView, note: str | None = None
) -> Response:
    """Show a secret, this once."""
    return page(
        "key_created.html",
        visitor=visitor,
        here="/keys",
        key=issued.key,
        secret=issued.secret,
        note=note,
        model=example_model(request, issued.key.models),
        base_url=base_url(request),
        preview=await key_preview_of(request, visitor, issued.key.policy, known),
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
    shown = await key_preview_of(request, visitor, policy, known)
    return JSONResponse({"rule": shown.rule, "matches": shown.matches})


@router.get("/keys/{key_id}/revoke")
async def confirm_revoke(request: Request, visitor: MayChange, key_id: str) -> Response:
    """Ask before a key ends."""
    key = await own_key(request, visitor, key_id)
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
    key = await own_key(request, visitor, key_id)
    with hub.changes.announcing(KeyChanged(key.id)):
        await hub.storage.keys.revoke(key.id, now=hub.clock())
    return see_other(f"/keys?revoked={key.id}")


async def own_key(request: Request, visitor: Visitor, key_id: str) -> ApiKey:
    """Return a key of the visitor's organisation.

    Raises:
        NotFound: there is none of that id, or it is another organisation's.
    """
    key = await hub_of(request).storage.keys.get(key_id)
    if key is None or key.organisation_id != visitor.organisation.id:
        raise NotFound("key", key_id)
    return key


async def _list_page(
    request: Request, visitor: Visitor, form: KeyForm, errors: Mapping[str, str]
) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    now, organisation = hub.clock(), visitor.organisation.id
    stored = await hub.storage.keys.list(organisation)
    midnight = day_start(now)
    usage = await hub.storage.usage.sums(organisation, since=midnight, until=midnight + DAY_S, by=(By.KEY,))
    today = {each.group[0]: each for each in usage}
    policy = read_policy(visitor.organisation.id, form.fleet, form.regions, form.minimum_trust)
    return page(
        "keys.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/keys",
        may_change=visitor.may_change,
        keys=[key_row(key, known.names, now, today, hub.budgets.tokens.used) for key in stored],
        revoked=_just_revoked(request, stored),
        saved=next((key.name for key in stored if key.id == request.query_params.get("saved")), None),
        form=form,
        errors=errors,
        fleets=FLEETS,
        trusts=TRUSTS,
        expiries=EXPIRIES,
        limits=LIMITS,
        region_rows=known.rows,
        preview=await key_preview_of(request, visitor, policy, known),
        example_model=example_model(request, None),
    )


def _just_revoked(request: Request, stored: Sequence[ApiKey]) -> str | None:
    asked = request.query_params.get("revoked")
    return next((key.name for key in stored if key.id == asked and key.revoked_at is not None), None)


def example_model(request: Request, allowed: frozenset[str] | None) -> str:
    """Name a model of the catalog, one that is allowed."""
    names = [spec.id for spec in hub_of(request).catalog]
    if allowed:
        return next((name for name in names if name in allowed), min(allowed))
    return names[0] if names else "model-id"


async def key_preview_of(
    request: Request, visitor: Visitor, policy: Policy | None, known: RegionsView
) -> Preview:
    """Say what a policy allows right now."""
    hub = hub_of(request)
    return preview(
        policy,
        organisation=visitor.organisation.name,
        nodes=await hub.storage.nodes.facts(visitor.organisation.id, hub.config.region_authority),
        online=hub.registry.connected_ids(),
        regions=known.tree,
        region_names=known.names,
    )
