"""What the protocols of the inference API do each in its own way: keys, what a body may ask, errors.

Owns the shapes that OpenAI's endpoints and Anthropic's do not share. What is common to them, and the words of
every error, lies elsewhere: nothing here decides who may ask for what.

Keep-alives are alike: a comment line is passed over by every reader of server-sent events, Anthropic's own
clients among them. So are ends: a stream ends as its engine has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from hub.api import openai_errors
from hub.api.request import Headers, Peek, peek
from hub.errors import RequestFailed

_NULL = msgspec.Raw(b"null")
_NOTHING_STORED = "Nothing is stored here: send the whole conversation with each request."
_NOBODY_ASKED = "Only the caller's own functions can be tools: nothing here asks other servers."
_ASKS_NOTHING = (b"null", b"false", b"[]")
_OWN_TOOLS = frozenset({None, "custom", "function"})


class Protocol:
    """OpenAI's chats, completions and embeddings; and rankings, which have no maker."""

    offered_as: str | None = None
    """The word by which a node says that its engine speaks it; ``None`` where every engine does."""

    def authorization(self, headers: Headers) -> str | None:
        """The header by which the caller says who it is.

        Raises:
            RequestFailed: ``invalid_value``: it is given more than once.
        """
        return headers.get("authorization")

    def peek(self, body: bytes) -> Peek:
        """Read what the Hub needs of a body.

        Raises:
            RequestFailed: it cannot be read, or asks for what cannot be done here.
        """
        return peek(body)

    def envelope(self, failure: RequestFailed, request_id: str) -> bytes:
        """The body of an error."""
        return openai_errors.envelope(failure, request_id)

    def event(self, failure: RequestFailed, request_id: str) -> bytes:
        """The event that ends a stream which has begun."""
        return openai_errors.sse_event(failure, request_id)


class _ResponsesPeek(Peek):
    """What OpenAI's own service would store, or would have stored already, beside the usual fields."""

    max_completion_tokens: int | None = msgspec.field(name="max_output_tokens", default=None)
    background: msgspec.Raw = _NULL
    conversation: msgspec.Raw = _NULL
    previous_response_id: msgspec.Raw = _NULL
    prompt: msgspec.Raw = _NULL
    store: msgspec.Raw = _NULL


class Responses(Protocol):
    """OpenAI's Responses: each stands for itself, since nothing is stored between them."""

    offered_as = "responses"
    _STORED = ("background", "conversation", "previous_response_id", "prompt", "store")

    def peek(self, body: bytes) -> Peek:
        """As of `Protocol`."""
        asked = peek(body, _ResponsesPeek)
        _refuse_named(asked, self._STORED, _NOTHING_STORED)
        _refuse_hosted(asked)
        return asked

    def event(self, failure: RequestFailed, request_id: str) -> bytes:
        """As of `Protocol`. Its own members are the protocol's; by `error` OpenAI's clients raise."""
        said = {"type": "error", "code": failure.code, "message": failure.message, "param": failure.param}
        return _event({**said, **openai_errors.document(failure, request_id)})


class _MessagesPeek(Peek, kw_only=True):
    """What would reach servers elsewhere, or a container that is kept, beside the usual fields.

    llama.cpp answers without a word what has no turns at all.
    """

    messages: list[msgspec.Raw]
    container: msgspec.Raw = _NULL
    mcp_servers: msgspec.Raw = _NULL


class Messages(Protocol):
    """Anthropic's Messages."""

    offered_as = "messages"

    def authorization(self, headers: Headers) -> str | None:
        """As of `Protocol`, or ``x-api-key``, as Anthropic's clients send it."""
        authorization, key = headers.get("authorization"), headers.get("x-api-key")
        if key is None:
            return authorization
        if authorization is not None and authorization.partition(" ")[2].strip() != key:
            raise RequestFailed(
                "invalid_value",
                "x-api-key and Authorization name different keys: send one.",
                param="x-api-key",
            )
        return f"Bearer {key}"

    def peek(self, body: bytes) -> Peek:
        """As of `Protocol`."""
        asked = peek(body, _MessagesPeek)
        _refuse_named(asked, ("container",), _NOTHING_STORED)
        _refuse_named(asked, ("mcp_servers",), _NOBODY_ASKED)
        _refuse_hosted(asked)
        return asked

    def envelope(self, failure: RequestFailed, request_id: str) -> bytes:
        """As of `Protocol`. ``code`` and ``param`` are ours: Anthropic's types tell less apart."""
        return msgspec.json.encode(_anthropic(failure, request_id))

    def event(self, failure: RequestFailed, request_id: str) -> bytes:
        """As of `Protocol`."""
        return _event(_anthropic(failure, request_id))


def _refuse_named(asked: Peek, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if bytes(getattr(asked, name)).strip() not in _ASKS_NOTHING:
            raise RequestFailed("unsupported_parameter", why, param=name)


class _Tool(msgspec.Struct):
    type: str | None = None


_tools = msgspec.json.Decoder(list[_Tool])


def _refuse_hosted(asked: Peek) -> None:
    """Tools that run at the maker's would carry what is said out of the region that the key names."""
    if not asked.needs_tools:
        return
    try:
        tools = _tools.decode(asked.tools)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return  # the engine says what is wrong with them
    if any(tool.type not in _OWN_TOOLS for tool in tools):
        raise RequestFailed("unsupported_parameter", _NOBODY_ASKED, param="tools")


def _event(document: Mapping[str, Any]) -> bytes:
    return b"event: error\ndata: " + msgspec.json.encode(document) + b"\n\n"


def _anthropic(failure: RequestFailed, request_id: str) -> Mapping[str, Any]:
    kind = _ANTHROPIC_TYPES.get(openai_errors.kind_of(failure).status, "api_error")
    error = {"type": kind, "message": failure.message, "code": failure.code, "param": failure.param}
    return {"type": "error", "error": error, "request_id": request_id}


# Anthropic's API reference, "Errors"; our 503 is its `overloaded_error`, since waiting helps.
_ANTHROPIC_TYPES: Mapping[int, str] = MappingProxyType(
    {
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
)
_OPENAI = Protocol()
OTHERS: Mapping[str, Protocol] = MappingProxyType({"/v1/responses": Responses(), "/v1/messages": Messages()})
"""Endpoints whose protocol is not that of OpenAI's chats."""


def protocol_of(path: str) -> Protocol:
    """The protocol that callers of an endpoint speak."""
    return OTHERS.get(path, _OPENAI)
