"""Enrollment over HTTP: the device authorization grant (RFC 8628), join tokens, leaving, another key.

Owns parsing, size and rate limits, and the wire form of every answer. Knows nothing of how a code or a
credential is made: that is `hub.enrollment`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar
from urllib.parse import parse_qs

import msgspec
from msgspec import Meta, Struct
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from hub.acting import Actor, act_as
from hub.api import discovery
from hub.api.address_limits import AddressLimits, site
from hub.api.request import Headers, read_body
from hub.composition import Hub
from hub.enrollment import Denied, Enrolled, Expired, Pending, Poll, SlowDown
from hub.errors import (
    HubError,
    InvalidInput,
    JoinTokenInvalid,
    RequestFailed,
    SignatureRefused,
    StorageUnavailable,
    TooManyAttempts,
)

MAX_BODY_BYTES = 32 * 1024
BODY_S = 30.0
"""Seconds that a body may take to come."""
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"

_MAX_FORM_FIELDS = 20

Handler = Callable[[Request], Awaitable[Response]]
Asked = TypeVar("Asked", bound=Struct)
Short = Annotated[str, Meta(max_length=200)]


class Device(Struct, frozen=True, kw_only=True):
    """One device, as the machine describes it."""

    kind: Annotated[str, Meta(max_length=32)]
    name: Short = ""
    memory_total: Annotated[int, Meta(ge=0, le=2**60)] = 0


class Machine(Struct, frozen=True, kw_only=True):
    """What a machine says about itself: shown to people, never judged."""

    hostname: Short = ""
    os: Short = ""
    arch: Short = ""
    devices: Annotated[tuple[Device, ...], Meta(max_length=64)] = ()
    fingerprint: Short = ""
    agent: Short = ""


class DeviceAuthorization(Struct, frozen=True, kw_only=True):
    """A machine asks for a code."""

    public_key: Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{43}$")]
    name: Annotated[str, Meta(max_length=200)] = ""
    machine: Machine = Machine()


class Join(DeviceAuthorization, frozen=True, kw_only=True):
    """A machine comes with a join token."""

    join_token: Annotated[str, Meta(max_length=200)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the one hoped for, in the words of RFC 6749, section 5.2, and RFC 8628, 3.5."""

    error: str
    description: str
    status: int = 400
    retry_after: float | None = None

    def response(self) -> Response:
        """The error as OAuth writes it."""
        answer = JSONResponse({"error": self.error, "error_description": self.description}, self.status)
        if self.retry_after is not None:
            answer.headers["retry-after"] = str(max(1, math.ceil(self.retry_after)))
        return answer


def routes(hub: Hub) -> list[BaseRoute]:
    """The enrollment endpoints."""
    api = Enrollment(hub)
    endpoints = {
        "device_authorization": api.device_authorization,
        "token": api.token,
        "join": api.join,
        "leave": api.leave,
        "rotate": api.rotate,
    }
    return [
        Route(f"/enroll/v1/{name}", _answering(call), methods=["POST"]) for name, call in endpoints.items()
    ]


class Enrollment:
    """The endpoints, with the pace each address is held to."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        # A machine asks once and polls every 5 s; a rack behind one address joins and polls together.
        self._asks = AddressLimits(per_minute=20, burst=20)
        self._polls = AddressLimits(per_minute=600, burst=120)

    async def device_authorization(self, request: Request) -> Response:
        """A machine asks for a code that somebody approves in the portal."""
        address = self._paced(request, self._asks)
        asked = _decode(await _body(request), DeviceAuthorization)
        grant = await self._hub.enrollment.start_device(
            asked.public_key, asked.name, msgspec.to_builtins(asked.machine), address
        )
        page = f"{self._hub.addresses.api_url}/device"
        return JSONResponse(
            {
                "device_code": grant.device_code,
                "user_code": grant.user_code,
                "verification_uri": page,
                "verification_uri_complete": f"{page}?user_code={grant.user_code}",
                "expires_in": math.floor(grant.expires_in),
                "interval": math.ceil(grant.interval),
            }
        )

    async def token(self, request: Request) -> Response:
        """A machine asks whether somebody decided: OAuth's token endpoint, so the body is a form."""
        self._paced(request, self._polls)
        form = _form(await _body(request))
        if "grant_type" not in form:
            return Refusal("invalid_request", "grant_type is required").response()
        if form["grant_type"] != DEVICE_GRANT:
            return Refusal("unsupported_grant_type", f"grant_type must be {DEVICE_GRANT}").response()
        if not form.get("device_code"):
            return Refusal("invalid_request", "device_code is required").response()
        return self._polled(await self._hub.enrollment.poll(form["device_code"]))

    async def join(self, request: Request) -> Response:
        """A machine comes with a join token; wrong ones are counted where they are judged."""
        address = self._paced(request, self._polls)
        asked = _decode(await _body(request), Join)
        machine = msgspec.to_builtins(asked.machine)
        try:
            enrolled = await self._hub.enrollment.join(
                asked.join_token, asked.public_key, asked.name, machine, site(address)
            )
        except JoinTokenInvalid:
            self._hub.journal.note("enrollment.join_refused", "")
            raise
        return self._enrolled(enrolled)

    async def leave(self, request: Request) -> Response:
        """A node goes for good; its own signature is the leave to do so."""
        self._paced(request, self._asks)
        await self._hub.enrollment.leave(_bearer(request))
        return Response(status_code=204)

    async def rotate(self, request: Request) -> Response:
        """A node announces the key it goes over to, signed with the one it has."""
        self._paced(request, self._asks)
        await self._hub.enrollment.rotate(_bearer(request))
        return Response(status_code=204)

    def _paced(self, request: Request, limits: AddressLimits) -> str:
        address = _address(request)
        limits.take(address, self._hub.clock())
        return address

    def _polled(self, poll: Poll) -> Response:
        match poll:
            case Enrolled():
                return self._enrolled(poll)
            case Pending():
                return Refusal("authorization_pending", "nobody has decided yet").response()
            case SlowDown():
                wait = f"poll every {math.ceil(poll.interval)} s from now on"
                return Refusal("slow_down", wait, retry_after=poll.interval).response()
            case Denied():
                return Refusal("access_denied", "the request was refused in the portal").response()
            case Expired():
                return Refusal("expired_token", "the code is unknown, used or too old").response()

    def _enrolled(self, enrolled: Enrolled) -> Response:
        return JSONResponse(
            {
                "node_id": enrolled.node.id,
                "name": enrolled.node.name,
                "credential": enrolled.credential,
                "hub": discovery.document(self._hub),
            }
        )


_EXPLAINED = (
    InvalidInput,
    JoinTokenInvalid,
    RequestFailed,
    SignatureRefused,
    StorageUnavailable,
    TooManyAttempts,
)


def _answering(handle: Handler) -> Handler:
    """Turn refusals into OAuth's error bodies; nobody caches what is said here."""

    async def answer(request: Request) -> Response:
        act_as(Actor("machine", address=site(_address(request))))
        try:
            response = await handle(request)
        except _EXPLAINED as error:
            response = _refusal(error).response()
        except ClientDisconnect:
            response = Refusal("invalid_request", "the body did not arrive whole").response()
        response.headers["cache-control"] = "no-store"
        return response

    return answer


def _refusal(error: HubError) -> Refusal:
    match error:
        case TooManyAttempts():
            return Refusal("slow_down", str(error), 429, error.retry_after)
        case StorageUnavailable():
            return Refusal("temporarily_unavailable", "the Hub's database does not answer", 503, 5.0)
        case JoinTokenInvalid():
            return Refusal("invalid_grant", str(error), 401)
        case SignatureRefused():
            return Refusal("invalid_client", str(error), 401)
        case RequestFailed():
            too_large = error.code == "request_too_large"
            return Refusal("invalid_request", error.message, 413 if too_large else 400)
    return Refusal("invalid_request", str(error))


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _bearer(request: Request) -> str:
    """The token that a node signed.

    Raises:
        SignatureRefused: it brings none.
    """
    scheme, _, token = (Headers(request.scope["headers"]).get("authorization") or "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise SignatureRefused("the request carries its token as Authorization: Bearer")
    return token.strip()


async def _body(request: Request) -> bytes:
    headers = Headers(request.scope["headers"])
    try:
        async with asyncio.timeout(BODY_S):
            return await read_body(headers, request.receive, MAX_BODY_BYTES, lambda _size: None)
    except TimeoutError:
        raise InvalidInput("body", f"did not arrive whole within {BODY_S:.0f} seconds") from None


def _number(literal: str) -> float:
    """A number with a point or an exponent. To JSON Schema, and so to the document, 1.0 is an integer."""
    number = float(literal)
    return int(number) if number.is_integer() else number


_JSON = msgspec.json.Decoder(float_hook=_number)


def _decode(body: bytes, kind: type[Asked]) -> Asked:
    """Read a JSON body; the decoder's words name fields and types, never values.

    Raises:
        InvalidInput: it is not what it should be.
    """
    try:
        return msgspec.convert(_JSON.decode(body), kind)
    except msgspec.ValidationError as error:
        raise InvalidInput("body", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidInput("body", "is not a JSON document") from None


def _form(body: bytes) -> dict[str, str]:
    """Read a form; what stands there twice counts as not there (RFC 6749, section 3.2).

    Raises:
        InvalidInput: it is not a form.
    """
    try:
        fields: dict[str, list[str]] = parse_qs(
            body.decode("ascii"), errors="strict", max_num_fields=_MAX_FORM_FIELDS
        )
    except ValueError:
        raise InvalidInput("body", "is not a form of type application/x-www-form-urlencoded") from None
    return {name: values[0] for name, values in fields.items() if len(values) == 1}
