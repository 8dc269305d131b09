"""How each request of the administrative API is taken: who asks, what came, once or again.

Owns the order. A token is looked at before a byte of a body is read; a body is bounded in size, time and
depth before anything understands it; what is written may carry an `Idempotency-Key`. Each refusal becomes an
answer here. Knows nothing of what a route does.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from hub.acting import Actor, Leave, act_as
from hub.api.address_limits import site
from hub.api.admin.errors import ADMIN_ERRORS, error_body, error_response, failure_of
from hub.api.edge import request_id, set_error_code
from hub.api.request import Headers, read_body
from hub.composition import Hub
from hub.errors import AdminTokenInvalid, HubError, RequestFailed
from hub.idempotency import Answer, Asked
from hub.storage.records import AdminToken

MAX_BODY_BYTES = 64 * 1024
MAX_DEPTH = 16
"""Arrays and objects inside each other; what the document describes needs four."""
BODY_S = 30.0
"""Seconds that a body may take to come."""
REPEATED = "idempotency-replayed"
"""The header that says that an answer is the one given before."""

_WRITES = frozenset({"POST", "PATCH", "DELETE"})
_IDEMPOTENCY_KEY = re.compile(r'"([ -!#-\[\]-~]{1,255})"|([!#-\[\]-~]{1,255})')
"""A string of RFC 8941 without escapes, or, as many clients send it, what would stand inside of one."""
_ABOUT_THE_CALLER = frozenset({401, 403, 429})

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class AdminRoute(APIRoute):
    """A route that lets in admin tokens alone."""

    reaches_out = False
    """Whether the route does something outside of the database, which no transaction undoes."""

    def get_route_handler(self) -> Handler:
        """Wrap the route's handler."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                response = await self._answer(request, handle)
            except (
                HubError,
                RequestValidationError,
                OperationalError,
                InterfaceError,
                ClientDisconnect,
            ) as error:
                response = refusal(request, error)
            response.headers["cache-control"] = "no-store"
            return response

        return answer

    async def _answer(self, request: Request, handle: Handler) -> Response:
        hub: Hub = request.app.state.hub
        headers = Headers(request.scope["headers"])
        token = await _authenticated(hub, request, headers)
        request.state.admin_token = token
        if request.method not in _WRITES:
            return await handle(request)
        key = _idempotency_key(headers)
        body = await _body(request, headers)
        if not await hub.admin_tokens.is_still(token):  # a body may take its time, in which a token ends
            raise AdminTokenInvalid
        request = Request(request.scope, _given(body))
        with hub.changes.held():
            if key is None:
                return await _handled(request, handle)
            url = request.url
            asked = Asked(
                token,
                key,
                (request.method.encode(), url.path.encode(), url.query.encode(), body),
                reaches_out=self.reaches_out,
            )
            return await _once(hub, asked, request, handle)


class OutsideRoute(AdminRoute):
    """A route that makes something happen elsewhere, such as on a node."""

    reaches_out = True


def admin_router(route_class: type[AdminRoute] = AdminRoute) -> APIRouter:
    """A router for one resource."""
    return APIRouter(route_class=route_class, generate_unique_id_function=lambda route: route.name)


def refusal(request: Request, error: Exception) -> Response:
    """The answer for a refusal.

    Raises:
        Exception: ``error`` itself, where it is a fault of ours.
    """
    if isinstance(error, ClientDisconnect):
        error = RequestFailed("invalid_request", "The body did not arrive whole.")
    if (failure := failure_of(error)) is None:
        raise error
    set_error_code(request.scope, failure.code)
    return error_response(failure, request_id(request))


async def _authenticated(hub: Hub, request: Request, headers: Headers) -> AdminToken:
    """Who asks; from here on what is done is theirs."""
    scheme, _, secret = (headers.get("authorization") or "").partition(" ")
    if scheme.lower() != "bearer":
        raise AdminTokenInvalid
    address = site(request.client.host) if request.client else "unknown"
    token = await hub.admin_tokens.authenticate(secret.strip(), address)
    act_as(Actor(token.id, token.organisation_id, address=address, leave=Leave(token.role)))
    return token


def _idempotency_key(headers: Headers) -> str | None:
    given = headers.get("idempotency-key")
    if given is None:
        return None
    if (found := _IDEMPOTENCY_KEY.fullmatch(given)) is None:
        words = "The header Idempotency-Key must be a string of 1 to 255 printable ASCII characters."
        raise RequestFailed("invalid_value", words, param="Idempotency-Key")
    return found[1] or found[2]


async def _body(request: Request, headers: Headers) -> bytes:
    try:
        async with asyncio.timeout(BODY_S):
            body = await read_body(headers, request.receive, MAX_BODY_BYTES, lambda _size: None)
    except TimeoutError:
        words = f"The body did not arrive whole within {BODY_S:.0f} seconds."
        raise RequestFailed("invalid_request", words) from None
    if body:
        _check_json(headers, body)
    return body


def _check_json(headers: Headers, body: bytes) -> None:
    kind = (headers.get("content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        words = "A body must be JSON, with Content-Type: application/json."
        raise RequestFailed("unsupported_media_type", words)
    try:
        depth = _depth(msgspec.json.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestFailed("invalid_json", "The body is no JSON document in UTF-8.") from None
    if depth > MAX_DEPTH:
        raise RequestFailed("invalid_json", f"The body is nested deeper than {MAX_DEPTH} levels.")


def _depth(value: object) -> int:
    """How deep a document is; the decoder has refused what could exhaust the stack."""
    depth, level = 0, [value]
    while level:
        parts = [part for part in level if isinstance(part, dict | list)]
        depth += bool(parts)
        level = [inner for part in parts for inner in (part.values() if isinstance(part, dict) else part)]
    return depth


def _given(body: bytes) -> Receive:
    """Gives a body that has been read already."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _handled(request: Request, handle: Handler) -> Response:
    try:
        return await handle(request)
    except HTTPException as error:  # the framework's own word for a body that it could not read
        words = "The body is no JSON document in UTF-8."
        raise RequestFailed("invalid_json", words) from error


async def _once(hub: Hub, asked: Asked, request: Request, handle: Handler) -> Response:
    async def act() -> Answer:
        response = await _handled(request, handle)
        return Answer(response.status_code, bytes(response.body))

    def refuse(error: HubError) -> Answer | None:
        failure = failure_of(error)
        status = ADMIN_ERRORS[failure.code].status if failure else 500
        if failure is None or status in _ABOUT_THE_CALLER or status >= 500:
            return None
        set_error_code(request.scope, failure.code)
        return Answer(status, error_body(failure, request_id(request)))

    given = await hub.idempotency.once(asked, act, refuse)
    kind = "application/json" if given.answer.body else None
    response = Response(given.answer.body, given.answer.status, media_type=kind)
    if given.is_repeated:
        response.headers[REPEATED] = "true"
    return response
