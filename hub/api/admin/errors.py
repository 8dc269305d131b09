"""The errors of the administrative API: which code goes out with which status and type.

Owns the one mapping from the Hub's own errors to answers (`docs/admin.md` repeats the table; a test compares
the two), in the same envelope as the inference API's. 400 is said where a request is not what the document
asks for, 422 where it is and still cannot be accepted. What is another organisation's and what does not exist
get the same answer, to the byte but for the request's id.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from fastapi import Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError

from hub.api.openai_errors import ErrorKind
from hub.errors import (
    AdminTokenInvalid,
    AlreadyExists,
    CodeUnknown,
    IdempotencyConflict,
    InvalidInput,
    NodeDraining,
    NodeNotConnected,
    NodeNotPermitted,
    NotAllowed,
    NotFound,
    RequestFailed,
    SpoolUnavailable,
    TooManyAttempts,
    TooManyJobs,
)
from hub.field_words import field_words

_INVALID = "invalid_request_error"
_UNAVAILABLE = "service_unavailable"

ADMIN_ERRORS: Mapping[str, ErrorKind] = MappingProxyType(
    {
        "invalid_json": ErrorKind(400, _INVALID),
        "invalid_request": ErrorKind(400, _INVALID),
        "invalid_value": ErrorKind(400, _INVALID),
        "missing_required_parameter": ErrorKind(400, _INVALID),
        "unknown_parameter": ErrorKind(400, _INVALID),
        "invalid_admin_token": ErrorKind(401, "authentication_error"),
        "not_allowed": ErrorKind(403, "permission_error"),
        "not_found": ErrorKind(404, _INVALID),
        "unknown_url": ErrorKind(404, _INVALID),
        "method_not_allowed": ErrorKind(405, _INVALID),
        "already_exists": ErrorKind(409, _INVALID),
        "idempotency_key_in_use": ErrorKind(409, _INVALID),
        "idempotency_outcome_unknown": ErrorKind(409, _INVALID),
        "node_not_connected": ErrorKind(409, _INVALID),
        "node_not_permitted": ErrorKind(409, _INVALID),
        "node_draining": ErrorKind(409, _INVALID),
        "too_many_jobs": ErrorKind(409, _INVALID),
        "request_too_large": ErrorKind(413, _INVALID),
        "unsupported_media_type": ErrorKind(415, _INVALID),
        "idempotency_key_reused": ErrorKind(422, _INVALID),
        "not_acceptable": ErrorKind(422, _INVALID),
        "rate_limit_exceeded": ErrorKind(429, "rate_limit_error"),
        "internal_error": ErrorKind(500, "server_error"),
        "storage_unavailable": ErrorKind(503, _UNAVAILABLE),
    }
)

_RETRY_S = 5.0


def failure_of(error: Exception) -> RequestFailed | None:
    """Say an error in the API's words; ``None`` for one that is no refusal but a fault of ours."""
    for kind, say in _SAID.items():
        if isinstance(error, kind):
            return say(error)
    return None


def error_response(failure: RequestFailed, request_id: str) -> Response:
    """A refusal as a whole answer."""
    kind = ADMIN_ERRORS.get(failure.code, ADMIN_ERRORS["internal_error"])
    response = Response(error_body(failure, request_id), kind.status, media_type="application/json")
    if failure.retry_after is not None:
        response.headers["retry-after"] = str(max(1, math.ceil(failure.retry_after)))
    if kind.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def error_body(failure: RequestFailed, request_id: str) -> bytes:
    """The JSON of a refusal."""
    kind = ADMIN_ERRORS.get(failure.code, ADMIN_ERRORS["internal_error"])
    error = {
        "message": failure.message,
        "type": kind.type,
        "param": failure.param,
        "code": failure.code,
    }
    return msgspec.json.encode({"error": error, "request_id": request_id})


def _sentence(error: Exception) -> str:
    words = str(error)
    return f"{words[:1].upper()}{words[1:]}."


def _invalid(error: RequestValidationError) -> RequestFailed:
    """The first thing that is wrong. The words name fields and rules, never values."""
    first: Mapping[str, Any] = error.errors()[0]
    where, *names = first["loc"]
    if where == "path":  # an id of another form is nobody's
        return RequestFailed("not_found", "There is no such thing, or it belongs to another organisation.")
    if first["type"] == "json_invalid":
        return RequestFailed("invalid_json", "The body is no JSON document.")
    param = ".".join(str(name) for name in names)[:200] or str(where)
    words = field_words(first) or "cannot be accepted"
    return _VALIDATION.get(first["type"], _wrong)(param, words)


def _wrong(param: str, words: str) -> RequestFailed:
    return RequestFailed("invalid_value", f"{param} {words}.", param=param)


def _missing(param: str, _words: str) -> RequestFailed:
    return RequestFailed("missing_required_parameter", f"{param} is required.", param=param)


def _unknown(param: str, _words: str) -> RequestFailed:
    return RequestFailed("unknown_parameter", f"There is no parameter {param} here.", param=param)


_VALIDATION: Mapping[str, Callable[[str, str], RequestFailed]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
}


def _as_it_is(error: RequestFailed) -> RequestFailed:
    return error


def _not_acceptable(error: InvalidInput) -> RequestFailed:
    return RequestFailed("not_acceptable", f"{error.field}: {error.message}.", param=error.field)


def _not_found(error: NotFound) -> RequestFailed:
    words = f"There is no such {error.kind}, or it belongs to another organisation."
    return RequestFailed("not_found", words)


def _too_many(error: TooManyAttempts) -> RequestFailed:
    words = "Too many attempts from this address: wait as long as Retry-After says."
    return RequestFailed("rate_limit_exceeded", words, retry_after=error.retry_after)


def _conflict(error: IdempotencyConflict) -> RequestFailed:
    soon = 1.0 if error.code == "idempotency_key_in_use" else None
    return RequestFailed(error.code, _sentence(error), param="Idempotency-Key", retry_after=soon)


def _unavailable(_error: Exception) -> RequestFailed:
    words = "The database or the disk cannot be used now, so nothing was done. Try again."
    return RequestFailed("storage_unavailable", words, retry_after=_RETRY_S)


def _said_as(code: str) -> Callable[[Exception], RequestFailed]:
    return lambda error: RequestFailed(code, _sentence(error))


_SAID: Mapping[type[Exception], Callable[[Any], RequestFailed]] = {
    RequestFailed: _as_it_is,
    RequestValidationError: _invalid,
    InvalidInput: _not_acceptable,
    NotFound: _not_found,
    CodeUnknown: _said_as("not_found"),
    NotAllowed: _said_as("not_allowed"),
    AlreadyExists: _said_as("already_exists"),
    AdminTokenInvalid: _said_as("invalid_admin_token"),
    TooManyAttempts: _too_many,
    IdempotencyConflict: _conflict,
    NodeNotConnected: _said_as("node_not_connected"),
    NodeNotPermitted: _said_as("node_not_permitted"),
    NodeDraining: _said_as("node_draining"),
    TooManyJobs: _said_as("too_many_jobs"),
    SpoolUnavailable: _unavailable,
    OperationalError: _unavailable,
    InterfaceError: _unavailable,
}
