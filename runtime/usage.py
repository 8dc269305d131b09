"""Reading token counts out of an answer that is passed on as it came.

Owns what is kept of a body (its two ends, bounded) and the shapes in which engines report usage. Pure: no
I/O, no clock. Never stores or logs what it looks at.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from runtime.closing import DONE, Closing

TAIL_BYTES = 64 * 1024
HEAD_BYTES = 4 * 1024
"""Embeddings name their usage before the vectors, chats after the text: both ends are looked at."""
_MAX_LINES = 64
_MAX_MEMBERS = 16
_LONGEST_COUNTS = 4096  # bytes of an object that holds nothing but counts
_MESSAGE_START = b'"message_start"'
_MESSAGE_DELTA = b'"message_delta"'
COMMENT = b": usage "
"""How our engine scripts report the count of a stream whose client did not ask for it."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Tokens as the engine counted them; `cached_tokens` are part of `prompt_tokens`."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class BodyEnds:
    """The first and the last bytes of a body, kept at O(1) a piece without joining them.

    Args:
        closing: how a stream says that it is whole.
    """

    def __init__(self, closing: Closing = DONE) -> None:
        self._head = b""
        self._pieces: deque[bytes] = deque()
        self._kept = 0
        self._last = b""
        self._begins, self._window, self._lasts = closing.begins, closing.window, closing.lasts
        self._is_whole = closing.is_whole
        self._began = False
        self._foreseen: tuple[bytes, bool] | None = None

    def add(self, piece: bytes) -> None:
        """Take note of the next piece."""
        if len(self._head) < HEAD_BYTES:
            self._head += piece[: HEAD_BYTES - len(self._head)]
        foreseen, self._foreseen = self._foreseen, None
        known = foreseen is not None and foreseen[0] is piece
        self._began = foreseen[1] if foreseen and known else self._closes(piece)
        size, window = len(piece), self._window
        self._last = piece[-window:] if size >= window else (self._last + piece)[-window:]
        if size > TAIL_BYTES:
            piece, size = piece[-TAIL_BYTES:], TAIL_BYTES
        self._pieces.append(piece)
        self._kept += size
        while self._kept - len(self._pieces[0]) >= TAIL_BYTES:
            self._kept -= len(self._pieces.popleft())

    def would_close(self, piece: bytes) -> bool:
        """Whether this piece, were it the next, would belong to the event that ends the stream."""
        closes = self._closes(piece)
        self._foreseen = (piece, closes)
        return closes

    def _closes(self, piece: bytes) -> bool:
        if self._lasts:
            return self._began or self._begins(self._last + piece)
        window = self._window
        return self._begins(piece[-window:] if len(piece) >= window else self._last + piece)

    @property
    def closes(self) -> bool:
        """The last piece belongs to the event that ends the stream, however it was cut into pieces."""
        return self._began

    @property
    def is_whole(self) -> bool:
        """The body so far ends with that event, and nothing of it is missing."""
        return self._began and self._is_whole(self._last)

    @property
    def head(self) -> bytes:
        """The first bytes, at most HEAD_BYTES."""
        return self._head

    @property
    def tail(self) -> bytes:
        """The last bytes: at least TAIL_BYTES of them where there are so many, else all."""
        return b"".join(self._pieces)


def find_usage(ends: BodyEnds, *, streamed: bool) -> TokenUsage | None:
    """The usage an answer reports, or None where it reports none.

    Args:
        ends: what was kept of the body.
        streamed: the body is a stream of server-sent events, not one JSON document.
    """
    if streamed:
        return _from_messages(ends) or _from_events(ends.tail) or _from_document(ends.tail)
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


def _from_messages(ends: BodyEnds) -> TokenUsage | None:
    """Anthropic's streams tell the prompt's count first and the answer's last; what is said last holds."""
    deltas = [line for line in ends.tail.splitlines()[-_MAX_LINES:] if _MESSAGE_DELTA in line]
    started = next((line for line in ends.head.splitlines() if _MESSAGE_START in line), None)
    if not deltas or started is None:
        return None
    first, last = _decode(started.removeprefix(b"data:")), _decode(deltas[-1].removeprefix(b"data:"))
    message = first.get("message") if isinstance(first, dict) else None
    counts: dict[str, Any] = {}
    for holder in (message, last):
        said = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(said, dict):
            counts |= {name: count for name, count in said.items() if count is not None}
    return _from_openai(counts)


def _from_document(text: bytes) -> TokenUsage | None:
    whole = _decode(text)
    if whole is not None:
        return _from_object(whole)
    for key in ("usage", "timings"):
        for value in _members(text, key):
            if (usage := _from_object({key: value})) is not None:
                return usage
    return None


def _members(text: bytes, key: str) -> Iterator[object]:
    """The values of members of that name, last first, in a document that was cut off at either end.

    A quote within a JSON string is escaped, so that text of the model never reads as a member.
    """
    needle = f'"{key}"'.encode()
    at = len(text)
    for _ in range(_MAX_MEMBERS):
        at = text.rfind(needle, 0, at)
        while at > 0 and text[at - 1 : at] == b"\\":
            at = text.rfind(needle, 0, at)
        if at < 0:
            return
        after = (
            text[at + len(needle) : at + len(needle) + _LONGEST_COUNTS].decode("utf-8", "replace").lstrip()
        )
        if after.startswith(":"):
            try:
                yield json.JSONDecoder().raw_decode(after[1:].lstrip())[0]
            except (ValueError, RecursionError):
                continue


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
    completion = _count(usage.get("completion_tokens", usage.get("output_tokens")))
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    if not isinstance(details, dict):  # Anthropic counts what the cache gave or took beside the rest
        cached = _count(usage.get("cache_read_input_tokens")) or 0
        prompt += cached + (_count(usage.get("cache_creation_input_tokens")) or 0)
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
