"""The administrative API's one router, put together from its resources, with its document beside it.

Owns which resources exist and where they stand. Knows nothing of what they do.
"""

from functools import cache

import msgspec
from fastapi import APIRouter, Response

from hub.api.admin import audit, enrollments, hub_wide, jobs, keys, nodes, people, usage
from hub.api.admin.openapi import described

PREFIX = "/admin/v1"

router = APIRouter(prefix=PREFIX)
for tag, group in {
    "keys": keys,
    "nodes": nodes,
    "jobs": jobs,
    "enrollment": enrollments,
    "the Hub": hub_wide,
    "people": people,
    "usage": usage,
    "audit": audit,
}.items():
    router.include_router(group.router, tags=[tag])


@router.get("/openapi.json", include_in_schema=False)
async def openapi() -> Response:
    """Give the document; it says nothing of this Hub, so anybody may read it."""
    return Response(_document(), media_type="application/json")


@cache
def _document() -> bytes:
    return msgspec.json.encode(described(router))
