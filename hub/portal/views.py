"""The portal's one router, put together from its page groups.

Owns: which page groups exist and in what order they are tried. Knows nothing of what a page shows.
"""

from fastapi import APIRouter

router = APIRouter(include_in_schema=False)
