"""How an error looks to callers of each protocol: OpenAI's, and Anthropic's.

Owns the bytes of a whole answer and of the event that ends a stream which has begun; what went wrong is
`runtime.envelope`'s business. Pure.
"""

import json
from typing import Any, Final, Protocol

from runtime.envelope import ErrorAnswer


class ErrorShape(Protocol):
    """How callers of one protocol are told of an error."""

    def body(self, answer: ErrorAnswer, request_id: str | None = None) -> bytes:
        """The whole answer."""

    def event(self, answer: ErrorAnswer) -> bytes:
        """The last event of a stream that has begun."""


class _OpenAi:
    def body(self, answer: ErrorAnswer, request_id: str | None = None) -> bytes:
        return answer.body(request_id)

    def event(self, answer: ErrorAnswer) -> bytes:
        return b"data: " + answer.body() + b"\n\n"


class _Responses(_OpenAi):
    """OpenAI's Responses have an event of their own. `error` is beside it: by that their clients raise."""

    def event(self, answer: ErrorAnswer) -> bytes:
        error = {"message": answer.message, "type": answer.type, "param": answer.param, "code": answer.code}
        said = {"type": "error", "code": answer.code, "message": answer.message, "param": answer.param}
        return b"event: error\ndata: " + json.dumps({**said, "error": error}).encode() + b"\n\n"


class _Anthropic:
    """`code` and `param` are ours: Anthropic's types tell less apart."""

    def body(self, answer: ErrorAnswer, request_id: str | None = None) -> bytes:
        kind = _ANTHROPIC_TYPES.get(answer.status, "api_error")
        error = {"type": kind, "message": answer.message, "code": answer.code, "param": answer.param}
        document: dict[str, Any] = {"type": "error", "error": error}
        if request_id is not None:
            document["request_id"] = request_id
        return json.dumps(document).encode()

    def event(self, answer: ErrorAnswer) -> bytes:
        return b"event: error\ndata: " + self.body(answer) + b"\n\n"


# Its reference, "Errors"; our 503 is `overloaded_error` there, since waiting helps.
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
OPENAI: Final[ErrorShape] = _OpenAi()
_SHAPES: Final[dict[str, ErrorShape]] = {"/v1/responses": _Responses(), "/v1/messages": _Anthropic()}


def shape_of(path: str) -> ErrorShape:
    """How callers of an endpoint are told of an error."""
    return _SHAPES.get(path, OPENAI)
