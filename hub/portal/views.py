"""The portal's one router, put together from its page groups.

Owns which page groups exist and in what order they are tried. Knows nothing of what a page shows.
"""

from fastapi import APIRouter

from hub.portal import (
    account,
    admin_tokens,
    approve,
    audit,
    invitation,
    key_edit,
    key_explain,
    keys,
    member,
    members,
    models,
    node_models,
    nodes,
    organisations,
    overview,
    playground,
    region_pages,
    second_step,
    sign_in,
    single_sign_on,
    static_files,
    trust,
    usage,
)
from hub.portal.pages import not_found_page

__all__ = ["not_found_page", "router"]

router = APIRouter(include_in_schema=False)
for group in (
    sign_in,
    single_sign_on,
    overview,
    approve,
    nodes,
    node_models,
    models,
    keys,
    key_explain,
    key_edit,
    playground,
    admin_tokens,
    usage,
    audit,
    organisations,
    region_pages,
    trust,
    members,
    member,
    account,
    second_step,
    invitation,
    static_files,
):
    router.include_router(group.router)
