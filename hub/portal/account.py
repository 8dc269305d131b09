"""`/account`: one's own password and sessions.

Owns that page. The second step is set up on pages of its own, :mod:`hub.portal.second_step`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.errors import InvalidInput
from hub.portal.pages import PortalRoute, hub_of, page, see_other
from hub.portal.presenting import ago_text
from hub.portal.proving import WRONG, proves
from hub.portal.roles import role_words
from hub.portal.sessions import Posted, SignedIn, Visitor
from hub.storage.records import PortalSession

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_DONE = {
    "password": ("Password changed.", "Every other session of yours has ended."),
    "session": ("Ended.", "That browser is signed out."),
    "sessions": ("Ended.", "Every other browser is signed out."),
    "connected": ("Connected.", "From now on single sign-on signs you in too."),
    "disconnected": ("Disconnected.", "Only your password signs you in now."),
    "second-step-off": ("Switched off.", "From now on the password alone signs you in."),
}


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A session as its owner sees it; `reference` is what ends it."""

    reference: str
    browser: str
    address: str
    began_at: float
    began: str
    is_this: bool


def session_row(session: PortalSession, this: str, now: float) -> SessionRow:
    """Describe a session."""
    return SessionRow(
        reference=session.id,
        browser=session.browser or "An unknown browser",
        address=session.address or "an unknown address",
        began_at=session.created_at,
        began=ago_text(session.created_at, now),
        is_this=session.id == this,
    )


@router.get("/account")
async def account(request: Request, visitor: SignedIn) -> Response:
    """Show one's own account."""
    return await account_page(request, visitor)


@router.post("/account/password")
async def change_password(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Replace the password, and end every other session."""
    errors = {}
    if not await proves(request, visitor, form):
        errors["present"] = WRONG
    elif form.raw("password") != form.raw("again"):
        errors["again"] = "The new password typed again is not the same as the new password."
    else:
        try:
            await hub_of(request).accounts.change_password(
                visitor.account.id, form.raw("password"), keep_session=visitor.session
            )
        except InvalidInput as error:
            errors["password"] = f"The new password {error.message}."
    if errors:
        return await account_page(request, visitor, errors)
    return see_other("/account?done=password")


@router.post("/account/sessions/{reference}/end")
async def end_session(request: Request, visitor: SignedIn, _form: Posted, reference: str) -> Response:
    """Sign one's own other browser out."""
    await hub_of(request).storage.sessions.end(visitor.account.id, reference)
    return see_other("/account?done=session")


@router.post("/account/sessions/end-others")
async def end_other_sessions(request: Request, visitor: SignedIn, _form: Posted) -> Response:
    """Sign every other browser of one's own out."""
    await hub_of(request).storage.sessions.end_others(visitor.account.id, visitor.session)
    return see_other("/account?done=sessions")


async def account_page(
    request: Request, visitor: Visitor, errors: Mapping[str, str] | None = None
) -> Response:
    """Show one's own account, with what was wrong in a form of it."""
    hub = hub_of(request)
    now, mine = hub.clock(), visitor.account.id
    sessions = [
        session_row(each, visitor.session, now) for each in await hub.storage.sessions.list(mine, now=now)
    ]
    sign_on = hub.single_sign_on
    is_on = await hub.second_step.is_on(mine)
    return page(
        "account.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/account",
        errors=errors or {},
        role=role_words(visitor.account.role).lower(),
        done=_DONE.get(request.query_params.get("done", "")),
        sessions=sorted(sessions, key=lambda row: not row.is_this),
        second_step=is_on,
        sign_on=sign_on.name if sign_on is not None else None,
        connected=sign_on is not None and await hub.storage.identities.linked(mine, sign_on.issuer),
        codes_left=await hub.storage.second_steps.codes_left(mine) if is_on else 0,
        must_have=hub.config.require_second_step and visitor.account.role.may_manage,
    )
