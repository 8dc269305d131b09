"""Reading an inference request: its size, the few fields that route it, and its narrowing headers.

Owns what is looked at and how it is refused. The body is otherwise not understood: its bytes go on as they
came. No message quotes a body.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from hub import refusals
from hub.errors import RequestFailed
from hub.policy import Narrowing

MAX_MODEL_CHARACTERS = 200
BODY_SILENCE_S = 30.0
"""Seconds in which nothing comes of a body, after which it is not waited for any longer."""

_REGION = re.compile(r"[a-z0-9]{1,16}(-[a-z0-9]{1,16}){0,7}")
_NODE = re.compile(r"node_[a-z2-7]{20}")
_NUMBER = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")
_POSITIVE = re.compile(r"(?=[0-9.]*[1-9])" + _NUMBER.pattern)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_WRONG_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)` - at `\$\.(\w+)")


class Peek(msgspec.Struct):
    """The fields that the Hub itself needs; all others pass by unread."""

    model: str
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: msgspec.Raw = msgspec.Raw(b"null")

    @property
    def needs_tools(self) -> bool:
        """Whether tools are named: an empty list asks for nothing."""
        return bytes(self.tools).translate(None, b" \t\r\n") not in (b"null", b"[]")


_decoders: dict[type[Peek], msgspec.json.Decoder[Peek]] = {}


class Headers:
    """A request's headers by lowercase name; what stands there twice has no meaning."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._values: dict[bytes, list[bytes]] = {}
        for name, value in raw:
            self._values.setdefault(name, []).append(value)

    def get(self, name: str) -> str | None:
        """The header's value.

        Raises:
            RequestFailed: ``invalid_value``: it is given more than once.
        """
        values = self._values.get(name.encode())
        if values is None:
            return None
        if len(values) > 1:
            raise RequestFailed("invalid_value", f"The header {name} is given more than once.", param=name)
        return values[0].decode("latin-1").strip()


def peek(body: bytes, kind: type[Peek] = Peek) -> Peek:
    """Read the routing fields of a body, and what else of it an endpoint looks at.

    Args:
        body: the body.
        kind: the fields.

    Raises:
        RequestFailed: ``invalid_json``, ``missing_required_parameter`` or ``invalid_type``.
    """
    if (decoder := _decoders.get(kind)) is None:
        decoder = _decoders[kind] = msgspec.json.Decoder(kind)
    try:
        found = decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestFailed("invalid_json", "The body is not a JSON document.") from None
    if not 0 < len(found.model) <= MAX_MODEL_CHARACTERS:
        raise RequestFailed("invalid_value", "`model` is empty or too long.", param="model")
    if "\0" in found.model:  # PostgreSQL would take no record of what a node of this name answered
        raise RequestFailed("invalid_value", "`model` holds a character that is no text.", param="model")
    return found


def _invalid(explanation: str) -> RequestFailed:
    """Translate the decoder's words, which name fields and types and quote no values."""
    if missing := _MISSING.match(explanation):
        name = missing[1]
        return RequestFailed("missing_required_parameter", f"The parameter `{name}` is required.", param=name)
    if wrong := _WRONG_TYPE.match(explanation):
        expected, got, name = wrong.groups()
        return RequestFailed("invalid_type", f"`{name}` must be {expected}, not {got}.", param=name)
    return RequestFailed("invalid_type", "The body must be a JSON object with the parameters of the request.")


async def read_body(
    headers: Headers, receive: Receive, limit: int, hold: Callable[[int], None], *, give_up: float = math.inf
) -> bytes:
    """Read a body of at most ``limit`` bytes; what comes beyond it is never kept.

    Args:
        headers: the request's.
        receive: gives the body.
        limit: bytes.
        hold: called with the size of each piece before it is kept; raises where there is no room.
        give_up: when the request's own time is up, by the loop's clock.

    Raises:
        RequestFailed: ``request_too_large``, as soon as that is known; ``invalid_request``: no more comes;
            ``deadline_exceeded``.
        ClientDisconnect: the client went away.
    """
    declared = headers.get("content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    loop = asyncio.get_running_loop()

    def patience() -> float:
        return min(loop.time() + BODY_SILENCE_S, give_up)

    try:
        async with asyncio.timeout_at(patience()) as silence:
            return await _read_pieces(receive, limit, hold, lambda: silence.reschedule(patience()))
    except TimeoutError:
        if loop.time() >= give_up:
            raise refusals.deadline_exceeded() from None
        raise RequestFailed(
            "invalid_request", f"Nothing came of the body for {BODY_SILENCE_S:.0f} seconds."
        ) from None


async def _read_pieces(
    receive: Receive, limit: int, hold: Callable[[int], None], wait_on: Callable[[], None]
) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        hold(len(piece))
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        wait_on()


def _too_large(limit: int) -> RequestFailed:
    return RequestFailed("request_too_large", f"The body is over the limit of {limit} bytes.")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the request's own headers ask for. They can only take away from what the key allows."""

    narrowing: Narrowing
    warmup_budget_s: float
    deadline_s: float = math.inf


def wishes(headers: Headers, *, warmup_budget_s: float) -> Wishes:
    """Read ``X-Porten-Region``, ``X-Porten-Node``, ``X-Porten-Warmup-Budget`` and ``X-Porten-Deadline``.

    Args:
        headers: the request's.
        warmup_budget_s: seconds to wait for a cold model where the request says nothing.

    Raises:
        RequestFailed: ``invalid_value``: a wish that cannot be read is refused, never ignored.
    """
    region = _wish(headers, "x-porten-region", _REGION, "a region's code such as eu-de")
    node = _wish(headers, "x-porten-node", _NODE, "a node's id such as node_…")
    budget = _wish(headers, "x-porten-warmup-budget", _NUMBER, "a number of seconds")
    deadline = _wish(headers, "x-porten-deadline", _POSITIVE, "a number of seconds above 0")
    return Wishes(
        Narrowing(region=region, node_id=node),
        warmup_budget_s if budget is None else float(budget),
        math.inf if deadline is None else float(deadline),
    )


def _wish(headers: Headers, name: str, form: re.Pattern[str], meaning: str) -> str | None:
    value = headers.get(name)
    if value is not None and not form.fullmatch(value):
        raise RequestFailed("invalid_value", f"The header {name} must be {meaning}.", param=name)
    return value
