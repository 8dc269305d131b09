"""What changes between a request as it came and as an endpoint that we did not start takes it, and back.

Owns the few members of a body that are written anew and the one event of a stream that is hidden. Pure: no
I/O, no clock. Never stores or logs what it looks at.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from runtime.errors import RequestRefused
from runtime.stateless import check_members
from runtime.usage import COMMENT

MAX_HELD_BYTES = 256 * 1024
STREAMING_PATHS = frozenset({"/v1/chat/completions", "/v1/completions"})
LEADS_ELSEWHERE = frozenset(
    {
        "api_base",
        "api_key",
        "base_url",
        "content_policy_fallbacks",
        "context_window_fallbacks",
        "custom_llm_provider",
        "extra_body",
        "fallbacks",
        "model_list",
        "models",
        "provider",
        "route",
        "user_config",
    }
)
"""Members by which gateways let a request choose another server or model than the owner's settings name."""
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_EVENT_WITHOUT_CHOICES = re.compile(rb'^data:([^\r\n]*"choices"\s*:\s*\[\s*\][^\r\n]*)', re.MULTILINE)

Members = dict[str, msgspec.Raw]


@dataclass(frozen=True, slots=True)
class Adapted:
    """A body for the endpoint. `unasked`: its stream will count tokens though the client did not ask."""

    body: bytes
    unasked: bool = False


def adapt(body: bytes, path: str, model: str) -> Adapted:
    """Name the model as the endpoint does, and have a stream counted; every other member stays as it is.

    Of members that are named twice the last counts, and alone is passed on.

    Raises:
        RequestRefused: the body is no JSON object, or asks for what leads elsewhere or needs a store.
    """
    members = _members(body)
    if members is None:
        raise RequestRefused("invalid_json", "the body is not a JSON object")
    if elsewhere := sorted(name for name in members if _leads_elsewhere(name)):
        raise RequestRefused(
            "unsupported_parameter", "The model's endpoint is its owner's to choose.", param=elsewhere[0]
        )
    check_members(members, path)
    members["model"] = _raw(model)
    unasked = path in STREAMING_PATHS and _have_counted(members)
    return Adapted(msgspec.json.encode(members), unasked)


def _leads_elsewhere(name: str) -> bool:
    """Servers written in Go take a member by any case of its name: `Model` would stand in for `model`."""
    folded = name.casefold()
    return folded in LEADS_ELSEWHERE or (folded == "model" and name != "model")


def _members(text: bytes | msgspec.Raw) -> Members | None:
    try:
        return msgspec.json.decode(bytes(text), type=Members)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _have_counted(members: Members) -> bool:
    """Ask for the count of a stream whose client did not; options that are no object are for the endpoint."""
    if not _is_true(members.get("stream")):
        return False
    given = members.get("stream_options", _raw(None))
    options: Members | None = {} if bytes(given) == b"null" else _members(given)
    if options is None or _is_true(options.get("include_usage")):
        return False
    members["stream_options"] = _raw({**options, "include_usage": True})
    return True


def _is_true(value: msgspec.Raw | None) -> bool:
    return value is not None and bytes(value) == b"true"


class UsageHider:
    """Turns the event with a stream's count into a comment, for a client that did not ask for it.

    OpenAI's clients may trip over a chunk without choices; every reader of events passes over a comment.
    Takes the stream in pieces of any cut. A line is passed on once it is whole.
    """

    def __init__(self) -> None:
        self._held = b""

    @property
    def holds(self) -> bool:
        """Whether part of a line waits for its end."""
        return bool(self._held)

    def passes(self, piece: bytes) -> bool:
        """Whether `feed` would give this piece back as it is, and hold nothing."""
        return not self._held and piece.endswith(b"\n") and not _NO_CHOICES.search(piece)

    def feed(self, piece: bytes) -> bytes:
        """What may be passed on by now."""
        lines, ended, rest = (self._held + piece).rpartition(b"\n")
        lines += ended
        if len(rest) > MAX_HELD_BYTES:  # no event of a chat: nothing is to be found in it
            lines, rest = lines + rest, b""
        self._held = rest
        return _hidden(lines)

    def rest(self) -> bytes:
        """What was held when the stream ended."""
        held, self._held = self._held, b""
        return _hidden(held)


def _hidden(lines: bytes) -> bytes:
    if not _NO_CHOICES.search(lines):
        return lines
    return _EVENT_WITHOUT_CHOICES.sub(lambda found: _as_comment(found[0], found[1]), lines)


def _as_comment(line: bytes, data: bytes) -> bytes:
    """The line as a comment where its event holds no choice and a count; else as it is."""
    try:
        event: object = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return line
    if (
        not isinstance(event, Mapping)
        or event.get("choices") != []
        or not isinstance(event.get("usage"), Mapping)
    ):
        return line
    return COMMENT + msgspec.json.encode(event["usage"])
