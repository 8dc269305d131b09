"""What every response of the Hub has in common: a request id, a count, and an answer even where we failed.

Owns the request's id (always ours: a client's own is not trusted), and the last place where an exception can
still become a response. Nothing of a request's content is logged here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub import refusals
from hub.api import openai_errors
from hub.api.protocols import protocol_of
from hub.errors import RequestFailed, StorageUnavailable
from hub.identifiers import new_id
from hub.portal.pages import not_found_page, with_page_headers

log = logging.getLogger(__name__)

REQUEST_ID_HEADER = b"x-request-id"
_MACHINES = ("/enroll/", "/install/", "/.well-known/")
"""Addresses that programs ask: they get no page where there is nothing."""
_METHODS = ("GET", "POST", "PATCH", "DELETE")
_ADMIN, _DOCUMENT = "/admin/", "see GET /admin/v1/openapi.json"
_CODES = {404: "unknown_url", 405: "method_not_allowed"}

Answered = Callable[[str, int, str], None]
"""Told of each answer: endpoint, status, error code or ``ok``."""


def set_error_code(scope: Scope, code: str) -> None:
    """Say how a request failed, for the count of answers."""
    scope["state"]["error_code"] = code


def request_id(request: Request) -> str:
    """The id of the request being answered."""
    found: str = request.scope["state"]["request_id"]
    return found


class Edge:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, *, answered: Answered, endpoints: frozenset[str]) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            answered: told of each answer.
            endpoints: paths counted by name; all others count together.
        """
        self._app = app
        self._answered = answered
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        identifier = new_id("req")
        state = scope.setdefault("state", {})
        state["request_id"] = identifier
        if "\0" in scope["path"]:  # no name holds one, and PostgreSQL does not even look for it
            scope["path"] = scope["path"].replace("\0", "%00")
        if b"%00" in scope["query_string"]:  # nor does any value
            scope["query_string"] = scope["query_string"].replace(b"%00", b"%2500")
        status = 0

        async def send_identified(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (REQUEST_ID_HEADER, identifier.encode())]
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, receive, send_identified)
        except Exception as error:  # noqa: BLE001 - the last place where a fault of ours can become an answer
            set_error_code(scope, "internal_error")
            log.error(  # noqa: TRY400 - a traceback ends with the exception's words
                "unexpected error",
                extra={"event": "api.failed", "request_id": identifier, "error": _where(error)},
            )
            if not status:
                await _internal_error(identifier, scope["path"])(scope, receive, send_identified)
        endpoint = scope["path"] if scope["path"] in self._endpoints else "other"
        self._answered(endpoint, status, state.get("error_code", "ok" if status < 400 else "other"))


def _where(error: BaseException) -> str:
    """Type and place of an exception, without its words: those may quote what somebody sent."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{place}"


def _internal_error(identifier: str, path: str) -> Response:
    return failure_response(RequestFailed("internal_error", "The Hub failed to answer."), identifier, path)


def failure_response(failure: RequestFailed, identifier: str, path: str = "") -> Response:
    """An error as a whole response, in the words of the protocol that is spoken at a path."""
    body = protocol_of(path).envelope(failure, identifier)
    response = Response(body, openai_errors.kind_of(failure).status)
    response.raw_headers = openai_errors.headers(failure, body)
    return response


async def on_request_failed(request: Request, error: Exception) -> Response:
    """Exception handler for `RequestFailed` outside the inference endpoints."""
    assert isinstance(error, RequestFailed)
    set_error_code(request.scope, error.code)
    return failure_response(error, request_id(request))


async def on_storage_unavailable(request: Request, error: Exception) -> Response:
    """Exception handler for a database that does not answer, wherever nobody has better words for it."""
    assert isinstance(error, StorageUnavailable)
    log.warning("%s", error, extra={"event": "api.database_away", "request_id": request_id(request)})
    return await on_request_failed(request, refusals.database_unavailable())


def _is_meant_for_the_api(request: Request) -> bool:
    """Whether a program with a key asks beside the API: mostly its base URL lacks what comes last."""
    shown = request.headers.get("authorization", "").lower().startswith("bearer ")
    return shown and not request.url.path.startswith(("/v1/", "/admin/", *_MACHINES))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Exception handler for what the router refuses: the envelope under ``/v1``, a page elsewhere."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        error = HTTPException(405, error.detail, headers={"allow": _allowed(request)})
    path = request.url.path
    if path.startswith(_ADMIN) and error.status_code in _CODES:
        failure = RequestFailed(
            _CODES[error.status_code], f"There is nothing here to {request.method}: {_DOCUMENT}."
        )
        return _refused(request, failure, error)
    if not path.startswith("/v1/") or error.status_code not in _CODES:
        if error.status_code == 404 and not path.startswith(_MACHINES):
            return not_found_page(request)
        refusal = PlainTextResponse(f"{error.detail}\n", error.status_code, headers=error.headers)
        return with_page_headers(refusal)
    failure = RequestFailed(
        _CODES[error.status_code], f"There is nothing here to {request.method}: see GET /v1/models."
    )
    return _refused(request, failure, error)


def _refused(request: Request, failure: RequestFailed, error: HTTPException) -> Response:
    set_error_code(request.scope, failure.code)
    response = failure_response(failure, request_id(request), request.url.path)
    response.headers.update(error.headers or {})
    return response


def _allowed(request: Request) -> str:
    """Every method that some route takes at this address (RFC 9110, section 10.2.1)."""
    routes = request.app.router.routes
    asked = [method for method in _METHODS if _is_taken(routes, {**request.scope, "method": method})]
    return ", ".join(asked)


def _is_taken(routes: Iterable[BaseRoute], scope: Scope) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)
