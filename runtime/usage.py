"""Reading token counts out of an answer that is passed on as it came.

Owns what is kept of a body (its two ends, bounded) and the shapes in which engines report usage. Pure: no
I/O, no clock. Never stores or logs what it looks at.
"""

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

TAIL_BYTES = 64 * 1024
HEAD_BYTES = 4 * 1024
"""Embeddings name their usage before the vectors, chats after the text: both ends are looked at."""
_DONE = b"[DONE]"
_DONE_WINDOW = 16
_MAX_LINES = 64
COMMENT = b": usage "
"""How our engine scripts report the count of a stream whose client did not ask for it."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the engine counted them; `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class BodyEnds:
    """The first and the last bytes of a body, kept at O(1) a piece without joining them."""

    def __init__(self) -> None:
        self._head = b""
        self._pieces: deque[bytes] = deque()
        self._kept = 0
        self._last = b""

    def add(self, piece: bytes) -> None:
        """Take note of the next piece."""
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        size = len(piece)
        self._last = piece[-_DONE_WINDOW:] if size >= _DONE_WINDOW else (self._last + piece)[-_DONE_WINDOW:]
        if size > TAIL_BYTES:
            piece, size = piece[-TAIL_BYTES:], TAIL_BYTES
        self._pieces.append(piece)
        self._kept += size
        while self._kept - len(self._pieces[0]) >= TAIL_BYTES:
            self._kept -= len(self._pieces.popleft())

    @property
    def says_done(self) -> bool:
        """The body so far ends with the event that ends OpenAI's streams, however it was cut into pieces."""
        return _says_done(self._last)

    def would_say_done(self, piece: bytes) -> bool:
        """Whether it does with this piece at its end."""
        return _says_done(piece[-_DONE_WINDOW:] if len(piece) >= _DONE_WINDOW else self._last + piece)

    @property
    def head(self) -> bytes:
        """The first bytes, at most HEAD_BYTES."""
        return self._head

    @property
    def tail(self) -> bytes:
        """The last bytes: at least TAIL_BYTES of them where there are so many, else all."""
        return b"".join(self._pieces)


def _says_done(end: bytes) -> bool:
    return _DONE in end and end.rstrip().endswith(_DONE)


def find_usage(ends: BodyEnds, *, streamed: bool) -> TokenUsage | None:
    """The usage an answer reports, or None where it reports none.

    Args:
        ends: what was kept of the body.
        streamed: the body is a stream of server-sent events, not one JSON document.
    """
    if streamed:
        return _from_events(ends.tail)
    return _from_document(ends.tail) or _from_document(ends.head)


def _from_events(tail: bytes) -> TokenUsage | None:
    """The last event that carries counts; its first line may have been cut off and is then not JSON."""
    for line in reversed(tail.splitlines()[-_MAX_LINES:]):
        if line.startswith(COMMENT) and (counted := _from_openai(_decode(line[len(COMMENT) :]))):
            return counted
        if line.startswith(b"data:") and (b'"usage"' in line or b'"timings"' in line):
            usage = _from_object(_decode(line[5:]))
            if usage is not None:
                return usage
    return None


def _from_document(text: bytes) -> TokenUsage | None:
    whole = _decode(text)
    if whole is not None:
        return _from_object(whole)
    for key in ("usage", "timings"):
        usage = _from_object({key: _last_member(text, key)})
        if usage is not None:
            return usage
    return None


def _last_member(text: bytes, key: str) -> object:
    """The value of the last member of that name in a document that was cut off at either end.

    A quote within a JSON string is escaped, so that text of the model never reads as a member.
    """
    needle = f'"{key}"'.encode()
    at = text.rfind(needle)
    while at > 0 and text[at - 1 : at] == b"\\":
        at = text.rfind(needle, 0, at)
    if at < 0:
        return None
    after = text[at + len(needle) :].decode("utf-8", "replace").lstrip()
    if not after.startswith(":"):
        return None
    try:
        value: object = json.JSONDecoder().raw_decode(after[1:].lstrip())[0]
    except (ValueError, RecursionError):
        return None
    return value


def _decode(text: bytes) -> object:
    try:
        value: object = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return value


def _from_object(value: object) -> TokenUsage | None:
    if not isinstance(value, dict):
        return None
    nested = value.get("response")  # the last event of /v1/responses wraps its usage
    holder: Mapping[str, Any] = nested if isinstance(nested, dict) else value
    return _from_openai(holder.get("usage")) or _from_llama_cpp(value.get("timings"))


def _from_openai(usage: object) -> TokenUsage | None:
    if not isinstance(usage, dict):
        return None
    prompt = _count(usage.get("prompt_tokens", usage.get("input_tokens")))
    if prompt is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    return TokenUsage(prompt, min(cached or 0, prompt), completion or 0)


def _from_llama_cpp(timings: object) -> TokenUsage | None:
    """llama.cpp's `timings` ride on the last chunk of a stream that did not ask for usage."""
    if not isinstance(timings, dict):
        return None
    processed, predicted = _count(timings.get("prompt_n")), _count(timings.get("predicted_n"))
    if processed is None or predicted is None:
        return None
    cached = _count(timings.get("cache_n")) or 0
    return TokenUsage(processed + cached, cached, predicted)


def _count(value: object) -> int | None:
    """A count of tokens; whatever else an engine may send there is no count."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**53:
        return None
    return int(value)
