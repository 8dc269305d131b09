"""`/login` and `/logout`.

Owns the sign-in page and its one answer for every failure. Passwords are `hub.accounts`'s matter, sessions
are `hub.portal.sessions`'s.
"""

from fastapi import APIRouter, Request, Response

from hub.errors import SignInRefused, TooManyAttempts
from hub.portal.pages import PortalRoute, base_url, client_address, hub_of, page, see_other
from hub.portal.presenting import span_text
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
    """Check e-mail and password, and go on to where the visitor wanted to."""
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
        response.headers["retry-after"] = str(max(1, round(error.retry_after)))
        return response
    response = see_other(target)
    await begin(request, response, account)
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
    visit = visit_token(request)
    response = page(
        "sign_in.html",
        status=status,
        csrf=csrf_token(visit),
        next=target,
        email=email,
        problem=problem,
        hub_name=hub_of(request).config.name,
        address=base_url(request).partition("://")[2],
    )
    keep_visit(request, response, visit)
    return response
