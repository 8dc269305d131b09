"""`/static/`: hands out the packaged files.

Only names that are packaged can be asked for: no path leads elsewhere.
"""

from fastapi import APIRouter, Request, Response

from hub.portal.assets import ASSETS
from hub.portal.errors import PageNotFound
from hub.portal.pages import PortalRoute
from hub.portal.presenting import DAY_S

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@router.get("/static/{name}")
async def asset(request: Request, name: str) -> Response:
    """Serve one packaged file."""
    if (found := ASSETS.get(name)) is None:
        raise PageNotFound(f"There is no file {name!r} here.")
    lasting = request.query_params.get("v") == found.version
    caching = f"public, max-age={365 * DAY_S}, immutable" if lasting else f"public, max-age={DAY_S}"
    return Response(found.body, media_type=found.kind, headers={"cache-control": caching})
