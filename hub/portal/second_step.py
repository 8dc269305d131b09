"""`/account/second-step`: setting up one's own second step at sign-in, and switching it off.

Owns those pages, among them the one that shows recovery codes, this once. How codes are computed is
`hub.totp`'s matter.
"""

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from hub.errors import SecondStepRefused
from hub.portal.account import account_page
from hub.portal.forms import Form
from hub.portal.pages import PortalRoute, hub_of, page, see_other
from hub.portal.proving import WRONG, proves
from hub.portal.qr import qr_svg
from hub.portal.sessions import Posted, SignedIn, Visitor
from hub.second_step import Enrolment

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_WRONG_CODE = "The code is wrong, was used before or is too old. Type the one that the app shows now."
_BEGIN_ANEW = "The code is wrong, or it took too long. Begin anew."


@router.get("/account/second-step")
async def start_page(request: Request, visitor: SignedIn) -> Response:
    """Say what a second step is, and ask for the password; whoever has one manages it on the account page."""
    if await hub_of(request).second_step.is_on(visitor.account.id):
        return see_other("/account#second-step")
    return _start_page(request, visitor, {})


@router.post("/account/second-step")
async def begin(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Draw a secret and show it, as a picture and as text."""
    if not await proves(request, visitor, form):
        return _start_page(request, visitor, {"present": WRONG})
    try:
        enrolment = await hub_of(request).second_step.begin(visitor.account)
    except SecondStepRefused:
        return see_other("/account#second-step")
    return _secret_page(visitor, enrolment, {})


@router.post("/account/second-step/confirm")
async def confirm(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Let the secret count, once a code shows that the app has it, and show the recovery codes."""
    hub = hub_of(request)
    try:
        codes = await hub.second_step.confirm(visitor.account, form.text("code"))
    except SecondStepRefused:
        pending = await hub.second_step.pending(visitor.account)
        if pending is None:
            return _start_page(request, visitor, {"present": _BEGIN_ANEW})
        return _secret_page(visitor, pending, {"code": _WRONG_CODE})
    return _codes_page(visitor, codes, "The second step is on")


@router.post("/account/second-step/codes")
async def new_codes(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Make other recovery codes and show them."""
    if errors := await _problems(request, visitor, form):
        return await account_page(request, visitor, errors)
    codes = await hub_of(request).second_step.new_codes(visitor.account.id)
    return _codes_page(visitor, codes, "New recovery codes")


@router.post("/account/second-step/off")
async def switch_off(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Let the password alone sign in again."""
    if errors := await _problems(request, visitor, form):
        return await account_page(request, visitor, errors)
    await hub_of(request).second_step.switch_off(visitor.account.id)
    return see_other("/account?done=second-step-off")


async def _problems(request: Request, visitor: Visitor, form: Form) -> dict[str, str]:
    """What is wrong with the password and the code that something asks for; the code is then used up."""
    if not await proves(request, visitor, form):
        return {"step_present": WRONG}
    try:
        await hub_of(request).second_step.check(visitor.account.id, form.text("code"))
    except SecondStepRefused:
        return {"step_code": _WRONG_CODE}
    return {}


def _start_page(request: Request, visitor: Visitor, errors: dict[str, str]) -> Response:
    config = hub_of(request).config
    return page(
        "second_step.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/account",
        errors=errors,
        must_have=config.require_second_step and visitor.account.role.may_manage,
    )


def _secret_page(visitor: Visitor, enrolment: Enrolment, errors: dict[str, str]) -> Response:
    return page(
        "second_step_secret.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/account",
        errors=errors,
        picture=Markup(qr_svg(enrolment.uri)),  # noqa: S704 - drawn by us: it holds no text
        secret=enrolment.text,
    )


def _codes_page(visitor: Visitor, codes: list[str], heading: str) -> Response:
    return page("recovery_codes.html", visitor=visitor, here="/account", codes=codes, heading=heading)
