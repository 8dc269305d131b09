"""Answers to browsers that ask whether a page from elsewhere may use the inference API.

Owns the headers by which a browser is told (the Fetch standard, "CORS protocol"). Only origins that the
operator named are told yes, and never with cookies: a key travels in a header that the page must know.
Nothing but ``/v1`` is spoken of: portal and enrollment are for nobody's pages but the Hub's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

ANY = "*"
"""An origin that the operator writes to let every page in."""

_PREFIX = "/v1/"
_METHODS = b"GET, POST"
_MAX_AGE_S = b"7200"  # the most that Chromium keeps
_EXPOSED = b", ".join(
    (
        b"x-request-id",
        b"x-porten-node",
        b"x-porten-region",
        b"x-porten-model-digest",
        b"x-porten-receipt",
        b"retry-after",
        b"x-ratelimit-limit-requests",
        b"x-ratelimit-remaining-requests",
        b"x-ratelimit-reset-requests",
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    )
)
_NAMES = re.compile(rb"[A-Za-z0-9-]{1,64}(?: ?, ?[A-Za-z0-9-]{1,64}){0,63}")


class Cors:
    """ASGI middleware around what answers ``/v1``."""

    def __init__(self, app: ASGIApp, *, origins: Iterable[str]) -> None:
        """Wrap an application.

        Args:
            app: what answers.
            origins: those that may ask, as browsers write them; `ANY` is all of them.
        """
        self._app = app
        self._origins = frozenset(origin.encode() for origin in origins)
        self._is_open = ANY.encode() in self._origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight, or let the answer say who may read it."""
        if scope["type"] != "http" or not scope["path"].startswith(_PREFIX):
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        allowed, told = self._told(asked.get(b"origin"))
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in asked:
            await _preflight(told, asked.get(b"access-control-request-headers"), send, allowed=allowed)
            return

        async def send_told(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = [(b"access-control-expose-headers", _EXPOSED)] if allowed else []
                message = {**message, "headers": [*message.get("headers", ()), *told, *exposed]}
            await send(message)

        await self._app(scope, receive, send_told)

    def _told(self, origin: bytes | None) -> tuple[bool, list[tuple[bytes, bytes]]]:
        """Whether a page may read the answer, and the headers that say so.

        What depends on the origin says that too, lest a cache mix answers up.
        """
        if self._is_open:
            return origin is not None, [(b"access-control-allow-origin", b"*")]
        vary = (b"vary", b"Origin")
        if origin is None or origin not in self._origins:
            return False, [vary]
        return True, [vary, (b"access-control-allow-origin", origin)]


async def _preflight(
    told: list[tuple[bytes, bytes]], wanted: bytes | None, send: Send, *, allowed: bool
) -> None:
    """Without a yes the browser lets the page ask nothing. Headers are named back: none is a cookie."""
    headers = list(told)
    if allowed:
        headers.append((b"access-control-allow-methods", _METHODS))
        headers.append((b"access-control-max-age", _MAX_AGE_S))
        if wanted is not None and _NAMES.fullmatch(wanted):
            headers.append((b"access-control-allow-headers", wanted))
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
