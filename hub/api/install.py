"""`/install.sh`: the project's installer with this Hub's address filled in.

Owns where the script is found and how the address gets into it. Knows nothing of what the script does.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from pathlib import Path

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route

from hub.composition import Hub

_PLACEHOLDER = 'HUB_URL_DEFAULT=""'
_HUB = Path(__file__).parent.parent
_PLACES = (_HUB / "portal" / "static" / "install.sh", _HUB.parent / "install.sh")
"""In a wheel beside the portal's files, in a checkout at its root."""


def with_hub_url(script: str, url: str) -> str:
    """Fill the address in, quoted for the shell whatever is in it.

    Raises:
        ValueError: the script has no single placeholder line: it would install without knowing its Hub.
    """
    lines = script.split("\n")
    if lines.count(_PLACEHOLDER) != 1:
        raise ValueError(f"the installer must have the line {_PLACEHOLDER} exactly once")
    lines[lines.index(_PLACEHOLDER)] = f"HUB_URL_DEFAULT={shlex.quote(url)}"
    return "\n".join(lines)


@lru_cache(maxsize=1)
def installer() -> str:
    """The script as the project ships it.

    Raises:
        FileNotFoundError: this installation has none.
    """
    found = next((place for place in _PLACES if place.is_file()), None)
    if found is None:
        raise FileNotFoundError("install.sh is not part of this installation")
    return found.read_text("utf-8")


def routes(hub: Hub) -> list[BaseRoute]:
    """The installer's endpoint."""

    async def install(_request: Request) -> PlainTextResponse:
        script = with_hub_url(installer(), hub.addresses.api_url)
        return PlainTextResponse(
            script, media_type="text/x-shellscript", headers={"cache-control": "no-cache"}
        )

    return [Route("/install.sh", install, methods=["GET"])]
