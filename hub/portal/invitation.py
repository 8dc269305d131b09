"""`/invitation/{token}`: somebody who was invited makes their account.

Owns that page, for people who are not signed in. What an invitation is worth is `hub.members`'s matter.
"""

from fastapi import APIRouter, Request, Response

from hub.acting import Actor, act_as
from hub.errors import AlreadyExists, InvalidInput, InvitationInvalid
from hub.portal.errors import PageNotFound
from hub.portal.pages import PortalRoute, client_address, hub_of, see_other
from hub.portal.roles import role_words
from hub.portal.sessions import PostedBeforeSignIn, begin
from hub.portal.sign_in import before_sign_in
from hub.storage.records import Invitation

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_LABELS = {"email": "The e-mail address", "password": "The password"}
_INVALID = (
    "This invitation was used, withdrawn or is too old, or the link is not whole. "
    "Ask whoever sent it for another one."
)


@router.get("/invitation/{token}")
async def invitation(request: Request, token: str) -> Response:
    """Show what one is invited to, and ask for e-mail address and password."""
    return await _page(request, await _find(request, token), {}, "")


@router.post("/invitation/{token}")
async def accept(request: Request, form: PostedBeforeSignIn, token: str) -> Response:
    """Make the account and sign it in."""
    hub, found = hub_of(request), await _find(request, token)
    email, password = form.text("email"), form.raw("password")
    if password != form.raw("again"):
        errors = {"again": "The password typed again is not the same as the password."}
        return await _page(request, found, errors, email)
    act_as(Actor("nobody", found.organisation_id, address=client_address(request)))
    try:
        account = await hub.members.accept(token, email=email, password=password)
    except InvalidInput as error:
        return await _page(request, found, {error.field: f"{_LABELS[error.field]} {error.message}."}, email)
    except AlreadyExists:
        errors = {"email": "The e-mail address has an account already. Take another one, or sign in."}
        return await _page(request, found, errors, email)
    except InvitationInvalid:
        raise PageNotFound(_INVALID) from None
    response = see_other("/")
    await begin(request, response, account, way="invitation")
    return response


async def _find(request: Request, token: str) -> Invitation:
    try:
        return await hub_of(request).members.find(token)
    except InvitationInvalid:
        raise PageNotFound(_INVALID) from None


async def _page(request: Request, found: Invitation, errors: dict[str, str], email: str) -> Response:
    organisation = await hub_of(request).storage.organisations.get(found.organisation_id)
    return before_sign_in(
        request,
        "invitation.html",
        status=422 if errors else 200,
        errors=errors,
        organisation=organisation.name if organisation is not None else "",
        role=role_words(found.role),
        email=email,
    )
