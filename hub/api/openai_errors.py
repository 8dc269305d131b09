"""The error table: which code goes out with which status and type, in OpenAI's envelope.

Owns the one mapping between codes and HTTP, and the shape of an error on the wire (`docs/api.md` repeats the
table; a test compares the two). Knows nothing of what leads to an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from hub.errors import RequestFailed


@dataclass(frozen=True, slots=True)
class ErrorKind:
    """How a code looks over HTTP."""

    status: int
    type: str


_INVALID = "invalid_request_error"
_UNAVAILABLE = "service_unavailable"

ERRORS: Mapping[str, ErrorKind] = MappingProxyType(
    {
        "invalid_api_key": ErrorKind(401, "authentication_error"),
        "model_not_allowed": ErrorKind(403, "permission_error"),
        "model_not_found": ErrorKind(404, _INVALID),
        "unknown_url": ErrorKind(404, _INVALID),
        "method_not_allowed": ErrorKind(405, _INVALID),
        "invalid_json": ErrorKind(400, _INVALID),
        "missing_required_parameter": ErrorKind(400, _INVALID),
        "invalid_type": ErrorKind(400, _INVALID),
        "invalid_value": ErrorKind(400, _INVALID),
        "unsupported_parameter": ErrorKind(400, _INVALID),
        "context_length_exceeded": ErrorKind(400, _INVALID),
        "invalid_request": ErrorKind(400, _INVALID),
        "request_too_large": ErrorKind(413, _INVALID),
        "rate_limit_exceeded": ErrorKind(429, "rate_limit_error"),
        "quota_exceeded": ErrorKind(429, "rate_limit_error"),
        "no_available_node": ErrorKind(503, _UNAVAILABLE),
        "model_warming": ErrorKind(503, _UNAVAILABLE),
        "overloaded": ErrorKind(503, _UNAVAILABLE),
        "database_unavailable": ErrorKind(503, _UNAVAILABLE),
        "node_lost": ErrorKind(502, "upstream_error"),
        "engine_error": ErrorKind(502, "upstream_error"),
        "deadline_exceeded": ErrorKind(504, "timeout_error"),
        "internal_error": ErrorKind(500, "server_error"),
    }
)

# What a node may answer for itself; any other code is the engine's own and goes by its status.
_FROM_NODES = frozenset(
    {
        "context_length_exceeded",
        "deadline_exceeded",
        "engine_error",
        "invalid_value",
        "model_not_found",
        "model_warming",
        "no_available_node",
        "overloaded",
        "unsupported_parameter",
    }
)
# Words that would tell the caller about a machine that may not be theirs.
_PLAIN_MESSAGES = {
    "engine_error": "The engine on the node failed to answer the request.",
    "no_available_node": "The node that was to answer cannot serve the model now.",
}


class _UpstreamError(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _UpstreamEnvelope(msgspec.Struct):
    error: _UpstreamError | str


def kind_of(failure: RequestFailed) -> ErrorKind:
    """How a failure looks over HTTP; a code the table lacks is our own fault."""
    return ERRORS.get(failure.code, ERRORS["internal_error"])


def envelope(failure: RequestFailed, request_id: str) -> bytes:
    """The JSON body of an error."""
    return msgspec.json.encode(document(failure, request_id))


def document(failure: RequestFailed, request_id: str) -> Mapping[str, object]:
    """The same before it becomes bytes."""
    error = {
        "message": failure.message,
        "type": kind_of(failure).type,
        "param": failure.param,
        "code": failure.code,
    }
    return {"error": error, "request_id": request_id}


def sse_event(failure: RequestFailed, request_id: str) -> bytes:
    """The event that ends a stream which has begun; no ``[DONE]`` follows it."""
    return b"data: " + envelope(failure, request_id) + b"\n\n"


def headers(failure: RequestFailed, body: bytes) -> list[tuple[bytes, bytes]]:
    """The headers of an error response with this body."""
    found = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if failure.retry_after is not None:
        found.append((b"retry-after", str(max(math.ceil(failure.retry_after), 1)).encode()))
    if failure.code == "invalid_api_key":
        found.append((b"www-authenticate", b"Bearer"))
    return found


def from_upstream(status: int, body: bytes, retry_after: str | None) -> RequestFailed:
    """Translate an error response of a node or its engine.

    The words of a refusal are the engine's and go to the caller, who sent what they speak of. What a node or
    its engine says of its own failure stays there: it may speak of a machine that is not the caller's.
    """
    error = _read(body)
    code = _code_of(status, error)
    message = _PLAIN_MESSAGES.get(code) or error.message or f"The engine refused with status {status}."
    return RequestFailed(code, message, param=error.param, retry_after=_seconds(retry_after))


def _read(body: bytes) -> _UpstreamError:
    try:
        found = msgspec.json.decode(body, type=_UpstreamEnvelope).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UpstreamError()
    return _UpstreamError(message=found) if isinstance(found, str) else found


def _code_of(status: int, error: _UpstreamError) -> str:
    if isinstance(error.code, str) and error.code in _FROM_NODES:
        return error.code
    if status == 413:
        return "request_too_large"
    if status == 429:
        return "overloaded"
    return "invalid_request" if 400 <= status < 500 else "engine_error"


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 8 else None
