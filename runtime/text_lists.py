"""Lists of texts in one request, for engines that work through a whole list before they look at others.

llama.cpp lines up every text of a list at once: whoever comes later waits for all of them, and a client that
has left is noticed at the end. Such an engine is given a list in parts, one after the other, and the answers
become one. Pure: no I/O, no clock. Never stores or logs what it looks at.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from runtime.errors import EngineFailed, RequestRefused

LISTS: Final = {"/v1/embeddings": "input", "/v1/completions": "prompt"}
"""The endpoints that take a list, with the member it is in."""
MOST_TEXTS: Final = 2048
"""As many as OpenAI's API takes in one request for embeddings (its reference, "Create embeddings")."""

_NUMBER: Final = b"-0123456789"


class _Embedded(msgspec.Struct):
    """An answer: of its members only those that change are understood."""

    data: list[dict[str, msgspec.Raw]]
    usage: dict[str, Any] = {}


def longest(body: bytes, path: str) -> int:
    """Bytes of the longest text that a body asks for: of a list its longest, of any other body all of it."""
    member = LISTS.get(path)
    texts = _texts(body, member) if member else None
    return len(body) if not texts else max(len(bytes(text)) for text in texts)


def split(body: bytes, path: str, at_once: int) -> list[bytes] | None:
    """Return the bodies of the parts, of `at_once` texts at most; None where the body can go as it is.

    Raises:
        RequestRefused: more texts than may come in one request, or a list whose answers cannot become one.
    """
    member = LISTS.get(path)
    texts = _texts(body, member) if member else None
    if member is None or texts is None or len(texts) <= at_once:
        return None
    most = MOST_TEXTS if path == "/v1/embeddings" else at_once
    if len(texts) > most:
        text = f"`{member}` has {len(texts)} texts; this model takes at most {most} in one request."
        raise RequestRefused("invalid_value", text, param=member)
    members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    return [
        msgspec.json.encode({**members, member: texts[start : start + at_once]})
        for start in range(0, len(texts), at_once)
    ]


def _texts(body: bytes, member: str) -> list[msgspec.Raw] | None:
    """The list's elements; None where there is no list, or one of numbers: that is one text in tokens."""
    try:
        members = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        texts = msgspec.json.decode(members.get(member, b"null"), type=list[msgspec.Raw] | None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # the engine says what is wrong with it
    if texts is None or any(bytes(text)[:1] in _NUMBER for text in texts):
        return None
    return texts


def merge(answers: Sequence[bytes]) -> bytes:
    """Return the parts' answers as the one to the whole list: its vectors in order, its tokens together.

    Raises:
        EngineFailed: one of them is no list of embeddings.
    """
    try:
        first = msgspec.json.decode(answers[0], type=dict[str, msgspec.Raw])
        parts = [msgspec.json.decode(answer, type=_Embedded) for answer in answers]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise EngineFailed("the engine's answer cannot be read") from None
    items = [item for part in parts for item in part.data]
    data = [{**item, "index": msgspec.Raw(str(number).encode())} for number, item in enumerate(items)]
    usage: dict[str, int] = {}
    for part in parts:
        for name, count in part.usage.items():
            if isinstance(count, int):
                usage[name] = usage.get(name, 0) + count
    return msgspec.json.encode({**first, "data": data, "usage": usage})
