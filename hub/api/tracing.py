"""The span around a request of the inference API, where requests are traced.

Owns what of HTTP is in it: path, status, request id. Nothing stands in a request's way where they are not.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.api.request import Headers
from tunnel.tracing import NO_SPAN, TRACEPARENT, Span, Tracing


class Traced:
    """ASGI middleware around an endpoint, inside `Edge`."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        state = scope["state"]
        parent = Headers(scope["headers"]).get(TRACEPARENT)
        with self._tracing.span(
            "porten.request", parent, path=scope["path"], request_id=state["request_id"]
        ) as span:
            state["span"] = span

            async def send_noted(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set(status=message["status"])
                await send(message)

            await self._app(scope, receive, send_noted)
            span.set(code=state.get("error_code", "ok"))


def span_of(scope: Scope) -> Span:
    """The span of the request that is being answered."""
    found: Span = scope["state"].get("span", NO_SPAN)
    return found
