"""`/keys/{key_id}`: what a key allows, to change; and its next secret.

Owns these two pages. What a key may be is `hub.keys`'s matter; a change counts at once.
"""

from collections.abc import Mapping

from fastapi import APIRouter, Request, Response

from hub.changes import KeyChanged
from hub.errors import InvalidInput, NotFound
from hub.keys import change_key, rotate_key
from hub.portal.key_form import EXPIRIES, KEEP, LIMITS, KeyForm, read_key_form
from hub.portal.keys import example_model, key_preview_of, own_key, secret_page
from hub.portal.pages import PortalRoute, field_problem, hub_of, page, see_other
from hub.portal.presenting import DAY_S, FLEETS, HOUR_S, TRUSTS, until_text
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import MayChange, Posted, Visitor
from hub.receipts import policy_hash
from hub.storage.records import ApiKey

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

OVERLAPS = (
    ("day", "A day", DAY_S),
    ("now", "Not at all: it ends now", 0),
    ("hour", "An hour", HOUR_S),
    ("week", "A week", 7 * DAY_S),
    ("month", "30 days", 30 * DAY_S),
)
"""How long the secret before may still work: name, words, seconds; the first is chosen at first."""


@router.get("/keys/{key_id}")
async def edit(request: Request, visitor: MayChange, key_id: str) -> Response:
    """Show what a key allows, to change."""
    key, known = await _living_key(request, visitor, key_id), await read_regions(request)
    return await _edit_page(request, visitor, key, KeyForm.of_key(key), _unreadable(key, known))


@router.post("/keys/{key_id}")
async def change(request: Request, visitor: MayChange, form: Posted, key_id: str) -> Response:
    """Change what a key allows."""
    hub, known = hub_of(request), await read_regions(request)
    key = await _living_key(request, visitor, key_id)
    asked, errors = read_key_form(form, known.tree, hub.clock(), key)
    if form.text("seen") != _seen(key):  # one that does not say is judged as an old one
        return await _edit_page(request, visitor, key, KeyForm.of_key(key), _CHANGED)
    if asked is None:
        return await _edit_page(request, visitor, key, KeyForm.of(form), errors)
    try:
        with hub.changes.announcing(KeyChanged(key.id)):
            changed = await change_key(
                hub.storage,
                key,
                name=asked.name,
                now=hub.clock(),
                fleet=asked.fleet,
                regions=asked.regions,
                minimum_trust=asked.minimum_trust,
                models=asked.models,
                expires_at=asked.expires_at,
                limits=asked.limits,
            )
    except InvalidInput as error:
        return await _edit_page(request, visitor, key, KeyForm.of(form), field_problem(error))
    if changed is None:
        key = await _living_key(request, visitor, key_id)
        return await _edit_page(request, visitor, key, KeyForm.of_key(key), _CHANGED)
    return see_other(f"/keys?saved={key.id}")


_CHANGED = {
    "name": "Somebody has changed this key since this page was opened, so nothing was saved. "
    "Below is what it allows now: change it again."
}


def _seen(key: ApiKey) -> str:
    """What the form carries of the rules its reader saw: nobody brings back what was narrowed."""
    return policy_hash(key.policy, key.models)


@router.get("/keys/{key_id}/rotate")
async def confirm_rotate(request: Request, visitor: MayChange, key_id: str) -> Response:
    """Ask how long the secret before is to work."""
    key = await _living_key(request, visitor, key_id)
    return _rotate_page(request, visitor, key, {})


@router.post("/keys/{key_id}/rotate")
async def rotate(request: Request, visitor: MayChange, form: Posted, key_id: str) -> Response:
    """Give a key another secret and show it, this once."""
    hub, known = hub_of(request), await read_regions(request)
    key, now = await _living_key(request, visitor, key_id), hub.clock()
    overlap_s = next((seconds for name, _, seconds in OVERLAPS if name == form.text("overlap")), None)
    if overlap_s is None:
        return _rotate_page(request, visitor, key, {"overlap": "Choose how long from the list."})
    try:
        with hub.changes.announcing(KeyChanged(key.id)):
            issued = await rotate_key(hub.storage, key, now=now, overlap_s=overlap_s)
    except InvalidInput as error:
        return _rotate_page(request, visitor, key, {"overlap": f"The key {error.message}."})
    ends = f"ends {until_text(issued.key.previous_expires_at, now)}" if overlap_s else "has ended"
    note = f"The secret before, {issued.key.previous_prefix}…, {ends}. Rules, limits and usage stay."
    return await secret_page(request, visitor, issued, known, note)


async def _living_key(request: Request, visitor: Visitor, key_id: str) -> ApiKey:
    key = await own_key(request, visitor, key_id)
    if key.revoked_at is not None:
        raise NotFound("key", key_id)
    return key


def _unreadable(key: ApiKey, known: RegionsView) -> dict[str, str]:
    """What the form cannot show as it is: saved as it stands, it would allow more."""
    found = {}
    if not key.regions <= set(known.names):
        found["regions"] = "The stored regions cannot be read, so this key reaches no node. Choose them anew."
    if key.models is not None and not key.models:
        found["models"] = (
            "The stored list allows no model. Write those it may use, or leave it empty for all."
        )
    if key.policy is None:
        found["fleet"] = "The stored rules cannot be read, so this key reaches no node. Choose them anew."
    return found


async def _edit_page(
    request: Request, visitor: Visitor, key: ApiKey, form: KeyForm, errors: Mapping[str, str]
) -> Response:
    now, known = hub_of(request).clock(), await read_regions(request)
    kept = "Never" if key.expires_at is None else until_text(key.expires_at, now).capitalize()
    return page(
        "key_edit.html",
        status=422 if errors and request.method == "POST" else 200,
        visitor=visitor,
        here="/keys",
        key=key,
        seen=_seen(key),
        form=form,
        errors=errors,
        fleets=FLEETS,
        trusts=TRUSTS,
        expiries=((KEEP, f"As it is: {kept.lower()}"), *EXPIRIES),
        limits=LIMITS,
        region_rows=known.rows,
        preview=await key_preview_of(request, visitor, key.policy, known),
        example_model=example_model(request, None),
    )


def _rotate_page(request: Request, visitor: Visitor, key: ApiKey, errors: Mapping[str, str]) -> Response:
    now = hub_of(request).clock()
    return page(
        "key_rotate.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/keys",
        key=key,
        overlaps=OVERLAPS,
        errors=errors,
        ending=key.previous_prefix if key.has_overlap(now) else None,
    )
