"""`/.well-known/porten`: how a node finds out who this Hub is and where to dial.

Owns the document's fields; enrollment hands out the same one. Nothing in it is secret.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from hub.composition import Hub
from tunnel.identity import encode_public_key
from tunnel.version import __version__


def document(hub: Hub) -> dict[str, Any]:
    """What a node needs to know of this Hub."""
    api_url = hub.addresses.api_url
    return {
        "hub_id": hub.hub_id,
        "name": hub.config.name,
        "version": __version__,
        "public_key": encode_public_key(hub.key.public_key()),
        "api_url": api_url,
        "tunnel_urls": list(hub.addresses.tunnel_urls),
        "enroll_url": f"{api_url}/enroll/v1",
    }


def routes(hub: Hub) -> list[BaseRoute]:
    """The discovery endpoint."""

    async def well_known(_request: Request) -> JSONResponse:
        return JSONResponse(document(hub), headers={"cache-control": "no-cache"})

    return [Route("/.well-known/porten", well_known, methods=["GET"])]
