"""How a stream of events says that it is whole, in each of the protocols that engines speak.

Owns the recognition of the event that ends a stream, in pieces of any cut and at a cost for each piece that
does not grow with the stream. The node keeps that event back until the answer is accounted for. Pure.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol


class Closing(Protocol):
    """One protocol's way to end."""

    @property
    def window(self) -> int:
        """Bytes of a body's end by which it is told."""

    @property
    def lasts(self) -> bool:
        """Whether the closing event may go on over many pieces, once it has begun."""

    def begins(self, end: bytes) -> bool:
        """Whether the closing event is in these bytes, the end of what there is."""

    def is_whole(self, end: bytes) -> bool:
        """Whether a body that ends so, and whose closing event has begun, is all there is."""


class Done:
    """OpenAI's chats and completions: `data: [DONE]`."""

    window = 16
    lasts = False

    def begins(self, end: bytes) -> bool:
        """As of `Closing`."""
        return b"[DONE]" in end and end.rstrip().endswith(b"[DONE]")

    is_whole = begins


class MessageStop:
    """Anthropic's Messages: an event of type `message_stop`, which holds nothing else."""

    window = 64
    lasts = False
    _LAST = re.compile(rb'"message_stop"\s*\}\s*\Z')

    def begins(self, end: bytes) -> bool:
        """As of `Closing`."""
        return b'"message_stop"' in end and self._LAST.search(end) is not None

    is_whole = begins


class ResponseEnd:
    """OpenAI's Responses: an event that repeats the whole response, and so may be of any length."""

    window = 48
    lasts = True
    # A line break never stands in JSON: what the model says cannot look like this.
    _FIRST = re.compile(rb"event: ?response\.(?:completed|incomplete|failed)[\r\n]")

    def begins(self, end: bytes) -> bool:
        """As of `Closing`."""
        return self._FIRST.search(end) is not None

    def is_whole(self, end: bytes) -> bool:
        """As of `Closing`."""
        return end.endswith((b"}\n\n", b"}\r\n\r\n"))


DONE: Final[Closing] = Done()
_CLOSINGS: Final[Mapping[str, Closing]] = MappingProxyType(
    {"/v1/responses": ResponseEnd(), "/v1/messages": MessageStop()}
)


def closing_of(path: str) -> Closing:
    """How streams of that endpoint end."""
    return _CLOSINGS.get(path, DONE)
