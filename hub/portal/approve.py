"""`/device`: a machine asks to join, somebody who is signed in lets it in or refuses.

Owns the two pages of RFC 8628's user interaction. What a code is worth is `hub.enrollment`'s matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fastapi import APIRouter, Request, Response

from hub.errors import CodeUnknown, InvalidInput
from hub.portal.pages import (
    PortalRoute,
    base_url,
    client_address,
    field_problem,
    hub_of,
    install_command,
    page,
)
from hub.portal.placement import PlacementForm, machine_view, read_placement, region_hint
from hub.portal.presenting import SHARINGS, TRUSTS, ago_text, sharing_text, trust_text
from hub.portal.regions import read_regions
from hub.portal.sessions import MayChange, Posted, SignedIn, Visitor
from hub.storage.records import DeviceEnrollment, Node

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_UNKNOWN = (
    "No machine is waiting under this code. It may be mistyped, used already, or older than 10 minutes: "
    "then run porten login on the machine again."
)
MAX_CODE_LENGTH = 32


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The machine that waits under a code, and the form that decides about it."""

    code: str
    enrollment: DeviceEnrollment
    form: PlacementForm
    errors: Mapping[str, str] = field(default_factory=dict)


def shown_code(typed: str) -> str:
    """Return a code as the machine shows it, however it was typed: upper case, in two halves."""
    letters = "".join(letter for letter in typed.upper() if letter.isalnum())
    return f"{letters[:4]}-{letters[4:]}" if len(letters) == 8 else letters


@router.get("/device")
async def device(request: Request, visitor: SignedIn, user_code: str = "") -> Response:
    """Ask for the code; with one, show the machine that waits under it."""
    code = shown_code(user_code[:MAX_CODE_LENGTH])
    if not code:
        return _code_page(request, visitor)
    try:
        enrollment = await _find(request, code)
    except CodeUnknown:
        return _code_page(request, visitor, code, _UNKNOWN)
    return await _approval_page(request, visitor, _Waiting(code, enrollment, PlacementForm(enrollment.name)))


@router.post("/device")
async def decide(request: Request, visitor: MayChange, form: Posted) -> Response:
    """Let the machine in, or refuse it."""
    code = shown_code(form.text("user_code")[:MAX_CODE_LENGTH])
    try:
        if form.text("action") == "deny":
            return await _deny(request, visitor, code)
        return await _approve(request, visitor, code, form)
    except CodeUnknown:
        return _code_page(request, visitor, code, _UNKNOWN)


async def _approve(request: Request, visitor: Visitor, code: str, form: Posted) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    enrollment = await _find(request, code)
    typed = PlacementForm(enrollment.name).typed(form, may_set_trust=visitor.account.is_operator)
    asked, errors = read_placement(typed, known.tree)
    if form.text("action") != "approve":
        errors = errors | {"action": "Choose to approve or to refuse."}
    if asked is None or errors:
        return await _approval_page(request, visitor, _Waiting(code, enrollment, typed, errors))
    try:
        node = await hub.enrollment.approve(
            code,
            visitor.account,
            name=asked.name,
            region=asked.region,
            trust=asked.trust,
            sharing=asked.sharing,
        )
    except InvalidInput as error:
        return await _approval_page(request, visitor, _Waiting(code, enrollment, typed, field_problem(error)))
    return await _approved_page(request, visitor, node)


async def _deny(request: Request, visitor: Visitor, code: str) -> Response:
    await hub_of(request).enrollment.deny(code, visitor.account)
    return page("device_done.html", visitor=visitor, here="/device", heading="Refused", node=None)


async def _find(request: Request, code: str) -> DeviceEnrollment:
    return await hub_of(request).enrollment.find_by_user_code(code, client_address(request))


def _code_page(request: Request, visitor: Visitor, code: str = "", problem: str | None = None) -> Response:
    return page(
        "device.html",
        status=404 if problem else 200,
        visitor=visitor,
        here="/device",
        user_code=code,
        problem=problem,
        install_command=install_command(request),
        base_url=base_url(request),
    )


async def _approval_page(request: Request, visitor: Visitor, waiting: _Waiting) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    return page(
        "approve.html",
        status=422 if waiting.errors else 200,
        visitor=visitor,
        here="/device",
        user_code=waiting.code,
        enrollment=waiting.enrollment,
        asked=ago_text(waiting.enrollment.created_at, hub.clock()),
        machine=machine_view(waiting.enrollment.machine, waiting.enrollment.public_key),
        form=waiting.form,
        errors=waiting.errors,
        may_change=visitor.may_change,
        may_set_trust=visitor.account.is_operator,
        region_rows=known.rows,
        region_hint=region_hint(hub.config.region_authority, is_operator=visitor.account.is_operator),
        regional_keys=await _regional_keys(request, visitor),
        trusts=TRUSTS,
        sharings=SHARINGS,
    )


async def _regional_keys(request: Request, visitor: Visitor) -> int:
    """How many keys of the visitor's organisation a machine without a region would not serve."""
    hub = hub_of(request)
    keys = await hub.storage.keys.list(visitor.organisation.id)
    return sum(key.is_active(hub.clock()) and bool(key.regions) for key in keys)


async def _approved_page(request: Request, visitor: Visitor, node: Node) -> Response:
    hub, known = hub_of(request), await read_regions(request)
    region = known.name(node.region)
    if node.region is not None and not node.facts(hub.config.region_authority).region_confirmed:
        region += ", once the Hub's operator confirms it"
    return page(
        "device_done.html",
        visitor=visitor,
        here="/device",
        heading="Approved",
        node=node,
        regional_keys=0 if node.region else await _regional_keys(request, visitor),
        region_words=region,
        trust_words=trust_text(node.trust),
        sharing_words=sharing_text(node.sharing),
    )
