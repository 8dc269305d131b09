"""OpenAI's error envelope, and the engine's headers and errors put into it.

Owns the one place where the node's faults and an engine's error answers become a status and a body. Pure.
Must not know the tunnel or a web framework.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from runtime.errors import (
    BodyTooLarge,
    EngineFailed,
    EngineUnavailable,
    LoadFailed,
    ModelDoesNotFit,
    ModelUnknown,
    NodeStopping,
    NodeYields,
    Overloaded,
    RequestRefused,
    RuntimeFault,
    Warming,
)

MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE_CHARACTERS = 2000
JSON_CONTENT = ("content-type", "application/json")
DIGEST_HEADER = "x-porten-model-digest"
_WARMING_RETRY_S = 5
_REQUEST_HEADERS = frozenset({"accept", "content-type"})
_RESPONSE_HEADERS = frozenset({"content-type"})
_CONTEXT_WORDS = (
    "exceed_context_size",
    "maximum context length",
    "context size",
    "context window",
    "too large to process",
    "exceed batch size",
)


@dataclass(frozen=True, slots=True)
class ErrorAnswer:
    """An error as the caller gets it: status, envelope, and seconds after which another try makes sense."""

    status: int
    code: str
    type: str
    message: str
    param: str | None = None
    retry_after_s: int | None = None

    def body(self, request_id: str | None = None) -> bytes:
        """The envelope as JSON."""
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        document: dict[str, Any] = {"error": error}
        if request_id is not None:
            document["request_id"] = request_id
        return json.dumps(document).encode()

    def headers(self) -> tuple[tuple[str, str], ...]:
        """The headers that go with it."""
        if self.retry_after_s is None:
            return (JSON_CONTENT,)
        return (JSON_CONTENT, ("retry-after", str(self.retry_after_s)))


def request_headers(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """What of a request's headers the engine gets: never a key, a cookie or an address."""
    return [(name.lower(), value) for name, value in headers if name.lower() in _REQUEST_HEADERS]


def response_headers(
    headers: Iterable[tuple[str, str]], *, digest: str | None = None
) -> tuple[tuple[str, str], ...]:
    """What of the engine's headers the caller gets, with the digest of the model that answered."""
    kept = [(name.lower(), value) for name, value in headers if name.lower() in _RESPONSE_HEADERS]
    if digest:
        kept.append((DIGEST_HEADER, digest))
    return tuple(kept)


_UPSTREAM = (502, "engine_error", "upstream_error")
_UNAVAILABLE = (503, "no_available_node", "service_unavailable")
_FAULTS: tuple[tuple[type[RuntimeFault], tuple[int, str, str]], ...] = (
    (ModelUnknown, (404, "model_not_found", "invalid_request_error")),
    (Warming, (503, "model_warming", "service_unavailable")),
    (Overloaded, (503, "overloaded", "service_unavailable")),
    (BodyTooLarge, (413, "request_too_large", "invalid_request_error")),
    (LoadFailed, _UPSTREAM),
    (EngineFailed, _UPSTREAM),
    (ModelDoesNotFit, _UNAVAILABLE),
    (EngineUnavailable, _UNAVAILABLE),
    (NodeStopping, _UNAVAILABLE),
    (NodeYields, _UNAVAILABLE),
)


def from_fault(fault: RuntimeFault) -> ErrorAnswer:
    """A fault of this node in the terms of the API's error table; what is not in it stays unexplained."""
    if isinstance(fault, RequestRefused):
        return ErrorAnswer(400, fault.code, _REQUEST_ERROR, str(fault), fault.param)
    for kind, (status, code, type_) in _FAULTS:
        if isinstance(fault, kind):
            param = "model" if kind is ModelUnknown else None
            return ErrorAnswer(status, code, type_, str(fault), param, _retry_after(fault))
    return ErrorAnswer(*_UPSTREAM, "the node could not answer")


def _retry_after(fault: RuntimeFault) -> int | None:
    if isinstance(fault, Warming):
        return _WARMING_RETRY_S
    if isinstance(fault, Overloaded | LoadFailed):
        return max(1, math.ceil(fault.retry_after_s))
    return None


def deadline_exceeded() -> ErrorAnswer:
    """The request's time is up."""
    return ErrorAnswer(504, "deadline_exceeded", "timeout_error", "the request's deadline passed")


def unknown_url(path: str) -> ErrorAnswer:
    """No such endpoint."""
    return ErrorAnswer(404, "unknown_url", "invalid_request_error", f"there is no endpoint {path}")


def no_such_endpoint(path: str) -> str:
    """What is told of an engine that lacks an endpoint."""
    return f"The engine that serves this model has no {path}: ask /v1/chat/completions."


def from_engine(status: int, body: bytes) -> ErrorAnswer:
    """An engine's error answer in OpenAI's envelope.

    Args:
        status: as the engine gave it, 400 or more.
        body: the first bytes of its body; anything may stand there.
    """
    message, kind, code, param = _read_error(body)
    at_fault = _blames_the_request(message)
    text = _ADVICE_TO_OPERATORS.sub("", _JSON_LIBRARY.sub("", message)) or _NO_WORDS.format(status)
    param = param or _named_parameter(text)
    if status in (400, 500) and _is_context_overflow(f"{kind} {text}"):
        return ErrorAnswer(400, "context_length_exceeded", "invalid_request_error", text, param)
    if status in (429, 503):
        return ErrorAnswer(503, "overloaded", "service_unavailable", text, retry_after_s=1)
    if (lacking := _lacks(status, text)) is not None:
        return ErrorAnswer(400, "unsupported_parameter", _REQUEST_ERROR, *lacking)
    if status in (400, 404, 413, 422) or at_fault:
        status = 400 if status in (422, 500) else status
        return ErrorAnswer(status, code or _CODES.get(status, "invalid_request"), _REQUEST_ERROR, text, param)
    # 401 and 403 are between the node and its engine; no caller can mend them.
    return ErrorAnswer(502, "engine_error", "upstream_error", text if status >= 500 else "the engine refused")


_REQUEST_ERROR = "invalid_request_error"
_CODES = {400: "invalid_request", 404: "unknown_url", 413: "request_too_large"}


_JSON_LIBRARY = re.compile(r"\[json\.exception\.[\w.]+\] ?")
_OF_THE_REQUEST = re.compile(r"Failed to parse (?:messages|tools)\b|Unknown reasoning format\b")
_NOT_DONE = re.compile(
    r"^(image|audio|video) input is not supported\b"
    r"|^The model takes nothing but text\.|is not a multimodal model\b"
)
_NO_WORDS = "the engine answered {}"
# llama.cpp and vLLM of an address that they do not know; others have no JSON for it.
_NO_PAGE = ("File Not Found", "Not Found", "Method Not Allowed", _NO_WORDS.format(404))
_ADVICE_TO_OPERATORS = re.compile(
    r"(?: - hint: .*|, try increasing it|\. increase the physical batch size.*)\Z", re.DOTALL
)
_PARAMETER = re.compile(r"(?:Field |Expected )?['\"](\w+)['\"]")


def _named_parameter(message: str) -> str | None:
    """llama.cpp begins with the parameter that it cannot read, in its words for it."""
    found = _PARAMETER.match(message)
    return found[1] if found else None


def _lacks(status: int, text: str) -> tuple[str, str | None] | None:
    """What the engine or its model does not do at all, and the parameter that asked for it."""
    if status == 501:
        # The engine's own words advise whoever starts it, which is nobody who asks.
        return "The model does not do this.", None
    if kinds := _NOT_DONE.search(text):
        return f"The model takes no {kinds[1] or 'pictures or sounds'}.", "messages"
    if status in (404, 405) and text in _NO_PAGE:
        return "The engine that serves this model has no such endpoint.", None
    return None


def _is_context_overflow(text: str) -> bool:
    return any(words in text.lower() for words in _CONTEXT_WORDS)


def _blames_the_request(message: str) -> bool:
    """llama.cpp answers 500 where reading a request failed: its types, its parts, or what it asks for."""
    return bool(_JSON_LIBRARY.search(message) or _OF_THE_REQUEST.match(message))


def _read_error(body: bytes) -> tuple[str, str, str | None, str | None]:
    """Message, type, code and param of the shapes that engines use; empty where there are none."""
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "", "", None, None
    if not isinstance(document, dict):
        return "", "", None, None
    error = document.get("error", document)  # older vLLM puts the members at the top
    if isinstance(error, str):
        return error[:MAX_MESSAGE_CHARACTERS], "", None, None
    if not isinstance(error, dict):
        return "", "", None, None
    message = _text(error.get("message")) or _text(error.get("detail")) or ""
    return message, _text(error.get("type")) or "", _text(error.get("code")), _text(error.get("param"))


def _text(value: object) -> str | None:
    return value[:MAX_MESSAGE_CHARACTERS] if isinstance(value, str) and value else None
