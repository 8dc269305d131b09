"""The portal's one router, put together from its page groups.

Owns which page groups exist and in what order they are tried. Knows nothing of what a page shows.
"""

from fastapi import APIRouter

from hub.portal import (
    approve,
    audit,
    key_edit,
    key_explain,
    keys,
    models,
    node_models,
    nodes,
    organisations,
    overview,
    playground,
    region_pages,
    sign_in,
    static_files,
    trust,
    usage,
)
from hub.portal.pages import not_found_page

__all__ = ["not_found_page", "router"]

router = APIRouter(include_in_schema=False)
for group in (
    sign_in,
    overview,
    approve,
    nodes,
    node_models,
    models,
    keys,
    key_explain,
    key_edit,
    playground,
    usage,
    audit,
    organisations,
    region_pages,
    trust,
    static_files,
):
    router.include_router(group.router)
