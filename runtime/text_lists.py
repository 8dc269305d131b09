"""Lists of texts in one request, for engines that work through a whole list before they look at others.

llama.cpp lines up every text of a list at once: whoever comes later waits for all of them, and a client that
has left is noticed at the end. Such an engine is given a list in parts, one after the other, and the answers
become one. Pure: no I/O, no clock. Never stores or logs what it looks at.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from runtime.errors import EngineFailed, RequestRefused

EMBEDDINGS: Final = "/v1/embeddings"
COMPLETIONS: Final = "/v1/completions"
RERANK: Final = "/v1/rerank"
LISTS: Final = {EMBEDDINGS: "input", COMPLETIONS: "prompt", RERANK: "documents"}
"""The endpoints that take a list, with the member it is in."""
MOST_TEXTS: Final = 2048
"""As many as OpenAI's API takes in one request for embeddings (its reference, "Create embeddings")."""

_NUMBER: Final = b"-0123456789"
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Members = dict[str, msgspec.Raw]


class _Embedded(msgspec.Struct):
    """An answer: of its members only those that change are understood."""

    data: list[Members]
    usage: dict[str, Any] = {}


class _Ranked(msgspec.Struct):
    """The same of an answer that ranks."""

    results: list[Members]
    usage: dict[str, Any] = {}


class _Ranking(msgspec.Struct):
    """What is asked of a ranking beside its texts: `top_n` is how many results are wanted, the best first."""

    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    texts: msgspec.Raw = msgspec.Raw(b"null")


@dataclass(frozen=True, slots=True)
class Parts:
    """A list's request as several: `bodies` of `at_once` texts each, the last perhaps of fewer."""

    bodies: Sequence[bytes]
    at_once: int
    path: str
    top_n: int | None = None

    def merge(self, answers: Sequence[bytes]) -> bytes:
        """Return the parts' answers as the one to the whole list: its items in order, its tokens together.

        Raises:
            EngineFailed: one of them is no answer to its part.
        """
        try:
            first = msgspec.json.decode(answers[0], type=Members)
            if self.path == RERANK:
                ranked = [msgspec.json.decode(answer, type=_Ranked) for answer in answers]
                best = _best_first(ranked, self.at_once)[: self.top_n]
                return msgspec.json.encode({**first, "results": best, "usage": _total(ranked)})
            embedded = [msgspec.json.decode(answer, type=_Embedded) for answer in answers]
        except (*_UNREADABLE, KeyError):
            raise EngineFailed("the engine's answer cannot be read") from None
        items = [item for part in embedded for item in part.data]
        data = [{**item, "index": _raw(number)} for number, item in enumerate(items)]
        return msgspec.json.encode({**first, "data": data, "usage": _total(embedded)})


def _best_first(parts: Sequence[_Ranked], at_once: int) -> list[Members]:
    """All results: a text's score does not depend on the texts beside it."""
    items = [
        {**item, "index": _raw(number * at_once + msgspec.json.decode(item["index"], type=int))}
        for number, part in enumerate(parts)
        for item in part.results
    ]
    return sorted(items, key=lambda item: -msgspec.json.decode(item["relevance_score"], type=float))


def _total(parts: Sequence[_Embedded | _Ranked]) -> dict[str, int]:
    usage: dict[str, int] = {}
    for part in parts:
        for name, count in part.usage.items():
            if isinstance(count, int):
                usage[name] = usage.get(name, 0) + count
    return usage


def _raw(number: int) -> msgspec.Raw:
    return msgspec.Raw(str(number).encode())


def check(body: bytes, path: str) -> None:
    """Refuse a ranking that an engine would fail at, or answer without a count of tokens.

    Raises:
        RequestRefused: `top_n` is no size, or the texts have the name that another API gives them.
    """
    if path == RERANK and bytes(_ranking(body).texts) != b"null":
        raise RequestRefused("unsupported_parameter", "Name the texts `documents`.", param="texts")


def _ranking(body: bytes) -> _Ranking:
    try:
        return msgspec.json.decode(body, type=_Ranking)
    except msgspec.ValidationError as error:
        if "$.top_n" not in str(error):
            return _Ranking()
        text = "`top_n` must be a whole number of at least 1."
        raise RequestRefused("invalid_value", text, param="top_n") from None
    except _UNREADABLE:
        return _Ranking()  # the engine says what is wrong with it


def longest(body: bytes, path: str) -> int:
    """Bytes of the longest text that a body asks for: of a list its longest, of any other body all of it.

    What a text is ranked for is read together with it.
    """
    member = LISTS.get(path)
    texts = _texts(body, member) if member else None
    if not texts:
        return len(body)
    query = bytes(_members(body).get("query", msgspec.Raw(b""))) if path == RERANK else b""
    return len(query) + max(len(bytes(text)) for text in texts)


def split(body: bytes, path: str, at_once: int) -> Parts | None:
    """Return the parts, of `at_once` texts at most; None where the body can go as it is.

    Raises:
        RequestRefused: more texts than may come in one request, or a list whose answers cannot become one.
    """
    member = LISTS.get(path)
    texts = _texts(body, member) if member else None
    if member is None or texts is None or len(texts) <= at_once:
        return None
    most = at_once if path == COMPLETIONS else MOST_TEXTS
    if len(texts) > most:
        text = f"`{member}` has {len(texts)} texts; this model takes at most {most} in one request."
        raise RequestRefused("invalid_value", text, param=member)
    members = _members(body)
    bodies = [
        msgspec.json.encode({**members, member: texts[start : start + at_once]})
        for start in range(0, len(texts), at_once)
    ]
    return Parts(bodies, at_once, path, _ranking(body).top_n if path == RERANK else None)


def _texts(body: bytes, member: str) -> list[msgspec.Raw] | None:
    """The list's elements; None where there is no list, or one of numbers: that is one text in tokens."""
    try:
        texts = msgspec.json.decode(
            _members(body).get(member, msgspec.Raw(b"null")), type=list[msgspec.Raw] | None
        )
    except _UNREADABLE:
        return None  # the engine says what is wrong with it
    if texts is None or any(bytes(text)[:1] in _NUMBER for text in texts):
        return None
    return texts


def _members(body: bytes) -> Members:
    return msgspec.json.decode(body, type=Members)
