"""The Hub's web application: routes put together around one `Hub`.

Owns which routers are mounted, in what order, and what happens to what none of them answers.
Knows nothing of how a route does its work.
"""

from __future__ import annotations

from fastapi import FastAPI

from hub.composition import Addresses, Hub

__all__ = ["Addresses", "Hub", "create_app"]


def create_app(hub: Hub) -> FastAPI:
    """Build the application; handlers reach the Hub as ``request.app.state.hub``."""
    app = FastAPI(title="Porten Hub", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.hub = hub
    return app
