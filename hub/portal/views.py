"""The portal's one router, put together from its page groups.

Owns which page groups exist and in what order they are tried. Knows nothing of what a page shows.
"""

from fastapi import APIRouter

from hub.portal import (
    admin_tokens,
    approve,
    audit,
    key_edit,
    key_explain,
    keys,
    node_models,
    nodes,
    overview,
    sign_in,
    static_files,
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
    keys,
    key_explain,
    key_edit,
    admin_tokens,
    usage,
    audit,
    static_files,
):
    router.include_router(group.router)
