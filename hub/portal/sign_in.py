"""`/login`, `/login/code` and `/logout`.

Owns the sign-in pages and their one answer for every failure. Passwords are `hub.accounts`'s matter, codes
`hub.second_step`'s, sessions `hub.portal.sessions`'s.
"""

from fastapi import APIRouter, Request, Response

from hub.errors import SecondStepRefused, SignInRefused, TooManyAttempts
from hub.portal.pages import PortalRoute, base_url, client_address, hub_of, page, retry_later, see_other
from hub.portal.pending import COOKIE, find_pending, keep_pending
from hub.portal.presenting import span_text
from hub.portal.sealed import drop_sealed
from hub.portal.security import csrf_token, safe_next
from hub.portal.sessions import (
    Posted,
    PostedBeforeSignIn,
    begin,
    end,
    find_visitor,
    keep_visit,
    visit_token,
)
from hub.storage.records import Account

MAX_EMAIL_LENGTH = 254  # RFC 5321; what is longer is nobody's, and is neither counted nor shown whole

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@router.get("/login")
async def sign_in_page(request: Request) -> Response:
    """Show the sign-in page; somebody signed in goes on at once."""
    target = safe_next(request.query_params.get("next"))
    if await find_visitor(request) is not None:
        return see_other(target)
    return _page(request, target=target)


@router.post("/login")
async def sign_in(request: Request, form: PostedBeforeSignIn) -> Response:
    """Check e-mail and password, and go on to where the visitor wanted to, or to the second step."""
    target, email = safe_next(form.get("next")), form.text("email")[: MAX_EMAIL_LENGTH + 1]
    try:
        account = await hub_of(request).accounts.sign_in(
            email, form.raw("password"), address=client_address(request)
        )
    except SignInRefused:
        problem = "E-mail or password is wrong. Type both again; the operator can set a new password."
        return _page(request, target=target, email=email, problem=problem, status=401)
    except TooManyAttempts as error:
        problem = f"Too many attempts. Wait {span_text(error.retry_after)}, then try again."
        response = _page(request, target=target, email=email, problem=problem, status=429)
        return retry_later(response, error)
    return await proved(request, account, target, way="password")


async def proved(request: Request, account: Account, target: str, *, way: str) -> Response:
    """Let in somebody who has proved who they are, or ask for the code that their account wants besides."""
    if await hub_of(request).second_step.is_on(account.id):
        response = _code_page(request, target)
        keep_pending(request, response, account, way)
        return response
    response = see_other(target)
    await begin(request, response, account, way=way)
    return response


@router.get("/login/code")
async def code_page(request: Request) -> Response:
    """Ask for the code again; nobody who owes one begins anew."""
    target = safe_next(request.query_params.get("next"))
    if await find_pending(request) is None:
        return see_other("/login")
    return _code_page(request, target)


@router.post("/login/code")
async def second_step(request: Request, form: PostedBeforeSignIn) -> Response:
    """Check the code, and go on to where the visitor wanted to."""
    hub, target = hub_of(request), safe_next(form.get("next"))
    pending = await find_pending(request)
    if pending is None:
        problem = "That took too long. Sign in again."
        return _page(request, target=target, problem=problem, status=401)
    account, way = pending
    try:
        await hub.second_step.check(account.id, form.text("code"))
    except SecondStepRefused:
        hub.journal.second_step_refused(account, client_address(request))
        problem = "That code is wrong, was used before or is too old. Type the one that is shown now."
        return _code_page(request, target, problem=problem, status=401)
    except TooManyAttempts as error:
        hub.journal.second_step_refused(account, client_address(request))
        problem = f"Too many attempts. Wait {span_text(error.retry_after)}, then try again."
        return retry_later(_code_page(request, target, problem=problem, status=429), error)
    response = see_other(target)
    await begin(request, response, account, way=f"{way} and code")
    drop_sealed(request, response, COOKIE)
    return response


@router.post("/logout")
async def sign_out(request: Request, _form: Posted) -> Response:
    """End the session."""
    response = see_other("/login")
    await end(request, response)
    return response


def _page(
    request: Request, *, target: str, email: str = "", problem: str | None = None, status: int = 200
) -> Response:
    return before_sign_in(request, "sign_in.html", status=status, next=target, email=email, problem=problem)


def _code_page(request: Request, target: str, *, problem: str | None = None, status: int = 200) -> Response:
    return before_sign_in(request, "sign_in_code.html", status=status, next=target, problem=problem)


def before_sign_in(request: Request, template: str, /, *, status: int = 200, **context: object) -> Response:
    """Render a page for somebody who is not signed in, with a form that is tied to this browser."""
    hub, visit = hub_of(request), visit_token(request)
    response = page(
        template,
        status=status,
        csrf=csrf_token(visit),
        hub_name=hub.config.name,
        single_sign_on=hub.single_sign_on.name if hub.single_sign_on is not None else None,
        address=base_url(request).partition("://")[2],
        **context,
    )
    keep_visit(request, response, visit)
    return response
