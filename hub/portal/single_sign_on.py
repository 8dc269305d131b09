"""`/login/single-sign-on` and connecting it to an account: the way to the identity provider and back.

Owns the two routes, the cookie that ties them together, and the page for each way it can fail. Whom the
provider's word lets in is `hub.single_sign_on`'s matter.
"""

import hmac
import logging
from dataclasses import astuple

from fastapi import APIRouter, Request, Response

from hub.acting import Actor, act_as
from hub.errors import IdentityProviderUnavailable, IdentityRefused
from hub.identity_provider import Attempt
from hub.portal.account import account_page
from hub.portal.errors import FormRefused, PageNotFound, SignOnFailed, SignOnUnavailable
from hub.portal.pages import PortalRoute, base_url, client_address, hub_of, page, see_other
from hub.portal.proving import WRONG, proves
from hub.portal.sealed import drop_sealed, keep_sealed, read_sealed
from hub.portal.security import safe_next
from hub.portal.sessions import Posted, SignedIn, find_visitor
from hub.portal.sign_in import proved
from hub.single_sign_on import SingleSignOn

logger = logging.getLogger(__name__)
router = APIRouter(route_class=PortalRoute, include_in_schema=False)

COOKIE = "sso"
CALLBACK = "/login/single-sign-on/callback"
MAX_CODE = 4096  # characters


@router.get("/login/single-sign-on")
async def go(request: Request) -> Response:
    """Send the browser to the identity provider."""
    target = safe_next(request.query_params.get("next"))
    attempt, url = await _begin(request)
    response = see_other(url)
    keep_sealed(request, response, COOKIE, [*astuple(attempt), target, None])
    return response


@router.get(CALLBACK)
async def back(request: Request) -> Response:
    """Sign in whoever the identity provider vouches for, or connect them to the account they asked for."""
    sign_on, said = _of(request), read_sealed(request, COOKIE)
    asked = request.query_params
    if said is None or not hmac.compare_digest(str(said[0]).encode(), asked.get("state", "").encode()):
        raise SignOnFailed(
            "It took too long, or was begun in another browser. Go to the sign-in page and begin anew."
        )
    state, nonce, verifier, target, account_id = said
    if asked.get("iss", sign_on.issuer) != sign_on.issuer:  # RFC 9207
        raise SignOnFailed("Another identity provider answered than the one that was asked.")
    if "error" in asked or not 0 < len(asked.get("code", "")) <= MAX_CODE:
        raise SignOnFailed(f"{sign_on.name} did not sign you in. Go to the sign-in page and begin anew.")
    attempt = Attempt(state, nonce, verifier)
    if account_id is not None:
        response = await _connect(request, sign_on, attempt, account_id)
    else:
        response = await _sign_in(request, sign_on, attempt, target)
    drop_sealed(request, response, COOKIE)
    return response


@router.post("/account/single-sign-on")
async def connect(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Ask for the password, then offer the way to the identity provider."""
    if not await proves(request, visitor, form):
        return await account_page(request, visitor, {"sso_present": WRONG})
    attempt, url = await _begin(request)
    response = page("single_sign_on.html", visitor=visitor, here="/account", name=_of(request).name, url=url)
    keep_sealed(request, response, COOKIE, [*astuple(attempt), "/", visitor.account.id])
    return response


@router.post("/account/single-sign-on/disconnect")
async def disconnect(request: Request, visitor: SignedIn, form: Posted) -> Response:
    """Let the identity provider sign this account in no more."""
    if not visitor.account.has_password:
        raise FormRefused(
            "Without a password nothing else would sign you in. Ask the operator for one first."
        )
    if not await proves(request, visitor, form):
        return await account_page(request, visitor, {"sso_present": WRONG})
    await hub_of(request).storage.identities.unlink(visitor.account.id, _of(request).issuer)
    return see_other("/account?done=disconnected")


async def _sign_in(request: Request, sign_on: SingleSignOn, attempt: Attempt, target: str) -> Response:
    act_as(Actor("provider", address=client_address(request)))
    try:
        account = await sign_on.sign_in(attempt, request.query_params["code"], _callback(request))
    except IdentityRefused as error:
        hub_of(request).journal.sign_in_refused(None, client_address(request))
        raise _refused(error) from None
    except IdentityProviderUnavailable as error:
        raise _unavailable(sign_on, error) from None
    return await proved(request, account, target, way="single sign-on")


async def _connect(request: Request, sign_on: SingleSignOn, attempt: Attempt, account_id: str) -> Response:
    visitor = await find_visitor(request)
    if visitor is None or visitor.account.id != account_id:
        raise SignOnFailed("You are no longer signed in as the one who began this. Sign in and begin anew.")
    act_as(Actor(account_id, visitor.organisation.id, address=client_address(request)))
    try:
        await sign_on.link(visitor.account, attempt, request.query_params["code"], _callback(request))
    except IdentityRefused as error:
        raise _refused(error) from None
    except IdentityProviderUnavailable as error:
        raise _unavailable(sign_on, error) from None
    return see_other("/account?done=connected")


async def _begin(request: Request) -> tuple[Attempt, str]:
    sign_on = _of(request)
    try:
        return await sign_on.begin(_callback(request))
    except IdentityProviderUnavailable as error:
        raise _unavailable(sign_on, error) from None


def _of(request: Request) -> SingleSignOn:
    if (sign_on := hub_of(request).single_sign_on) is None:
        raise PageNotFound("This Hub has no single sign-on. Sign in with your password.")
    return sign_on


def _callback(request: Request) -> str:
    return base_url(request) + CALLBACK


def _refused(error: IdentityRefused) -> SignOnFailed:
    fields = {"event": "portal.sign_on_refused", "reason": str(error)}
    logger.info("single sign-on refused", extra=fields)
    return SignOnFailed(_sentence(error))


def _unavailable(sign_on: SingleSignOn, error: IdentityProviderUnavailable) -> SignOnUnavailable:
    what = f"{sign_on.name} cannot be asked now: {error}"
    return SignOnUnavailable(f"{_sentence(what)} Try again in a while, or sign in with a password.")


def _sentence(words: object) -> str:
    text = str(words)
    return f"{text[:1].upper()}{text[1:]}."
