"""`/install.sh` and what it installs: the program of this Hub, its address and digest filled in.

Owns where the script is found, what is filled into it, and the program's addresses. Knows nothing of what the
script does, nor of what a wheel holds.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from hub.composition import Hub
from hub.program import Program, own_program
from tunnel.handout import Handout, sign_handout

_HUB = Path(__file__).parent.parent
_PLACES = (_HUB / "portal" / "static" / "install.sh", _HUB.parent / "install.sh")
"""In a wheel beside the portal's files, in a checkout at its root."""
_ASK_ANEW = {"cache-control": "no-cache"}


def filled_in(script: str, values: Mapping[str, str]) -> str:
    """The script with what it is to know of its Hub, quoted for the shell whatever is in it.

    Raises:
        ValueError: the script has not exactly one line to fill each in: it would install something else.
    """
    lines = script.split("\n")
    for name, value in values.items():
        placeholder = f'{name}=""'
        if lines.count(placeholder) != 1:
            raise ValueError(f"the installer must have the line {placeholder} exactly once")
        lines[lines.index(placeholder)] = f"{name}={shlex.quote(value)}"
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
    """The installer's endpoints."""
    packing = asyncio.Lock()

    async def program() -> Program:
        async with packing:  # whoever asks meanwhile waits for the same
            return await asyncio.to_thread(own_program)

    async def script(_request: Request) -> Response:
        handed_out = await program()
        values = {
            "HUB_URL_DEFAULT": hub.addresses.api_url,
            "PROGRAM_FILE": handed_out.file,
            "PROGRAM_SHA256": handed_out.sha256,
        }
        text = filled_in(installer(), values)
        return PlainTextResponse(text, media_type="text/x-shellscript", headers=_ASK_ANEW)

    async def word(_request: Request) -> Response:
        handed_out = await program()
        handout = Handout(
            hub_id=hub.hub_id,
            version=handed_out.version,
            file=handed_out.file,
            size=len(handed_out.content),
            sha256=handed_out.sha256,
        )
        return Response(sign_handout(hub.key, handout), media_type="application/jwt", headers=_ASK_ANEW)

    async def wheel(request: Request) -> Response:
        handed_out = await program()
        if request.path_params["file"] != handed_out.file:
            raise HTTPException(404)  # that of another version; nothing else was ever here
        return Response(handed_out.content, media_type="application/zip", headers=_ASK_ANEW)

    return [
        Route("/install.sh", script, methods=["GET"]),
        Route("/install/program", word, methods=["GET"]),
        Route("/install/{file}", wheel, methods=["GET"]),
    ]
