"""Turns data into pages, and refusals into pages that say what to do.

Owns the template environment, the headers of every portal answer and the one mapping from portal errors to
pages. Knows nothing of what a page is about.
"""

import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from hub.api.address_limits import site
from hub.composition import Hub
from hub.errors import InvalidInput, NotFound, SignedOut, StorageUnavailable, TooManyAttempts
from hub.errors import NotAllowed as RoleTooLow
from hub.portal import presenting
from hub.portal.assets import asset_url
from hub.portal.errors import (
    NO_SUCH_PAGE,
    FormRefused,
    JobRefused,
    NotAllowed,
    PageNotFound,
    PortalError,
    SecondStepRequired,
    SignInRequired,
    SignOnFailed,
    SignOnUnavailable,
    TooMuch,
)
from hub.portal.navigation import navigation
from hub.portal.security import PAGE_HEADERS

logger = logging.getLogger(__name__)

RETRY_AFTER_S = 5
"""Seconds after which a page that the database kept back is worth another try."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_HEADINGS: dict[type[PortalError], str] = {
    FormRefused: "That form was not accepted",
    JobRefused: "The node takes no work now",
    NotAllowed: "Your role does not reach this far",
    PageNotFound: "There is no such page",
    SignOnFailed: "You are not signed in",
    SignOnUnavailable: "Single sign-on does not answer",
    TooMuch: "That is more than a page gives",
}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name is an error in a test, not a blank on a page
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=presenting.bytes_text,
        number=presenting.number_text,
        moment=presenting.moment_text,
        moment_iso=presenting.moment_iso,
    )
    environment.globals.update(
        asset_url=asset_url, counted=presenting.counted, here=None, navigation=navigation
    )
    environment.globals.update(fields=None, tone="button-danger", keep="Keep it")  # of a question
    environment.globals["parts"] = environment.get_template("_parts.html").module
    return environment


_TEMPLATES = _environment()


def hub_of(request: Request) -> Hub:
    """Return the Hub that serves this request."""
    hub: Hub = request.app.state.hub
    return hub


def base_url(request: Request) -> str:
    """Return this Hub's address as its users know it, without a slash at the end."""
    return hub_of(request).addresses.api_url.rstrip("/") or str(request.base_url).rstrip("/")


def is_secure(request: Request) -> bool:
    """Say whether browsers reach this Hub over TLS, a proxy's included."""
    return base_url(request).startswith("https://")


def page(template: str, /, *, status: int = 200, **context: object) -> HTMLResponse:
    """Render a template; `here` names the tab that is current."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(context), status_code=status)


def client_address(request: Request) -> str:
    """Return what guesses are counted against: the address a request came from, of IPv6 its site.

    Behind a trusted proxy it is the one the server took from it.
    """
    return site(request.client.host) if request.client else "unknown"


def install_command(request: Request) -> str:
    """Return the line that installs a node for this Hub; the script it fetches knows the Hub's address."""
    return f"curl -fsSL {base_url(request)}/install.sh | sh"


def see_other(target: str) -> RedirectResponse:
    """Send the browser on with a GET, so that a reload repeats nothing."""
    return RedirectResponse(target, status_code=HTTPStatus.SEE_OTHER)


def field_problem(error: InvalidInput) -> dict[str, str]:
    """Return what a form says about a field that the domain did not accept."""
    label = error.field.replace("_", " ").capitalize()
    return {error.field: f"{label}: {error.message}."}


class PortalRoute(APIRoute):
    """A route whose every answer carries the portal's headers and whose refusals are pages."""

    def get_route_handler(self) -> Handler:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except (
                PortalError,
                NotFound,
                RoleTooLow,
                SignedOut,
                StorageUnavailable,
                TooManyAttempts,
            ) as error:
                response = refusal_page(request, error)
            return with_page_headers(response)

        return guarded


def with_page_headers(response: Response) -> Response:
    """Add the security headers an answer does not set itself."""
    for name, value in PAGE_HEADERS.items():
        response.headers.setdefault(name, value)
    return response


def refusal_page(request: Request, error: Exception) -> Response:
    """Return the page for a refusal; somebody not signed in is sent to do so and comes back."""
    if isinstance(error, SignInRequired | SignedOut):
        return see_other(f"/login?next={quote(_way_back(request), safe='/')}")
    if isinstance(error, SecondStepRequired):
        return see_other("/account/second-step")
    if isinstance(error, TooManyAttempts):
        return _too_many(error)
    if isinstance(error, StorageUnavailable):
        return _database_away()
    portal_error = _as_portal_error(error)
    logger.info(
        "page refused",
        extra={
            "event": "portal.refused",
            "status": portal_error.status,
            "reason": type(portal_error).__name__,
        },
    )
    heading = _HEADINGS.get(type(portal_error), "That did not work")
    return page("error.html", status=portal_error.status, heading=heading, words=str(portal_error))


def not_found_page(request: Request) -> Response:
    """Return the page for an address nobody answers; the application calls it outside its APIs."""
    error = PageNotFound(NO_SUCH_PAGE)
    return with_page_headers(refusal_page(request, error))


def _way_back(request: Request) -> str:
    """Return where to go after signing in: only a page that was asked for, never one that was posted to."""
    if request.method != "GET":
        return "/"
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")


def _as_portal_error(error: Exception) -> PortalError:
    if isinstance(error, PortalError):
        return error
    if isinstance(error, NotFound):
        return PageNotFound(f"There is no such {error.kind}, or it belongs to another organisation.")
    return NotAllowed(f"{error}. Ask an owner or administrator of your organisation.")


def _database_away() -> Response:
    response = page(
        "error.html",
        status=HTTPStatus.SERVICE_UNAVAILABLE,
        heading="The database does not answer",
        words="Nothing can be shown or changed until it does. Apps whose keys were used lately go on. "
        "Reload this page in a moment; if it lasts, tell the Hub's operator.",
    )
    response.headers["retry-after"] = str(RETRY_AFTER_S)
    return response


def _too_many(error: TooManyAttempts) -> Response:
    wait = presenting.span_text(error.retry_after)
    response = page(
        "error.html",
        status=HTTPStatus.TOO_MANY_REQUESTS,
        heading="Too many attempts",
        words=f"To keep guessing slow, this is paused. Try again in {wait}.",
    )
    return retry_later(response, error)


def retry_later(response: Response, error: TooManyAttempts) -> Response:
    """Say in an answer's head when another attempt is taken."""
    response.headers["retry-after"] = str(max(1, round(error.retry_after)))
    return response
