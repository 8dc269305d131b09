"""The Hub's web application: routes put together around one `Hub`.

Owns which routers are mounted, in what order, and what happens to what none of them answers.
Knows nothing of how a route does its work.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from hub.api import discovery, enroll, health, inference, install, models
from hub.api.admin import views as admin
from hub.api.cors import Cors
from hub.api.edge import Edge, on_http_exception, on_request_failed, on_storage_unavailable
from hub.api.tracing import Traced
from hub.composition import Hub
from hub.errors import RequestFailed, StorageUnavailable
from hub.portal import views

__all__ = ["Hub", "create_app"]

_COUNTED = frozenset({*inference.ENDPOINTS, "/v1/models"})


class _Application(FastAPI):
    """Inference goes straight to its endpoint: each chunk would pay for every layer that it passed.

    Attributes:
        straight: what answers a POST, by path. All else takes the framework's way.
    """

    straight: Mapping[str, ASGIApp] = MappingProxyType({})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in self.straight:
            await self.straight[scope["path"]](scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(hub: Hub) -> FastAPI:
    """Build the application; handlers reach the Hub as ``request.app.state.hub``."""
    app = _Application(
        title="Porten Hub",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # a redirect would carry a key to wherever the Host header says
        exception_handlers={
            HTTPException: on_http_exception,
            RequestFailed: on_request_failed,
            StorageUnavailable: on_storage_unavailable,
        },
    )
    app.state.hub = hub
    for group in (inference, models, discovery, enroll, health, install):
        app.router.routes.extend(group.routes(hub))
    app.include_router(admin.router)
    app.include_router(views.router)
    app.add_middleware(Edge, answered=hub.metrics.answered, endpoints=_COUNTED)
    app.straight = {
        path: Edge(_traced(endpoint, hub), answered=hub.metrics.answered, endpoints=_COUNTED)
        for path, endpoint in inference.endpoints(hub).items()
    }
    if origins := hub.config.cors_origins:
        app.add_middleware(Cors, origins=origins)
        app.straight = {path: Cors(each, origins=origins) for path, each in app.straight.items()}
    return app


def _traced(endpoint: ASGIApp, hub: Hub) -> ASGIApp:
    return Traced(endpoint, hub.tracing) if hub.tracing.enabled else endpoint
