"""`/healthz`, `/readyz` and `/metrics`: what machines ask about the process itself.

Owns what makes a Hub ready: a database that answers, room for usage records, a tunnel that listens, and no
wish to stop.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from hub.composition import Hub
from hub.errors import StorageUnavailable
from hub.metrics import CONTENT_TYPE

CHECK_S = 2.0
"""Seconds that the database has for a sign of life: who asks for readiness does not wait for long."""


async def readiness(hub: Hub) -> dict[str, bool]:
    """Each condition of readiness by its name."""
    return {
        "database": await _database_answers(hub),
        "disk": hub.meter.has_room(),
        "tunnel": hub.addresses.tunnel_listening,
        "accepting": not hub.addresses.draining,
    }


async def _database_answers(hub: Hub) -> bool:
    try:
        await hub.storage.check(within_s=CHECK_S)
    except StorageUnavailable:
        return False
    return True


def routes(hub: Hub) -> list[BaseRoute]:
    """The endpoints of the process."""

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        checks = await readiness(hub)
        return JSONResponse({"ready": all(checks.values()), **checks}, 200 if all(checks.values()) else 503)

    async def metrics(_request: Request) -> Response:
        return Response(hub.metrics.text(), media_type=None, headers={"content-type": CONTENT_TYPE})

    return [
        Route("/healthz", healthz, methods=["GET"]),
        Route("/readyz", readyz, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
