"""An answer read to its end."""

from typing import Any


async def pieces_of(response: Any) -> list[tuple[bytes, bool]]:
    found = []
    while piece := await response.read():
        found.append((piece, response.complete))
    return found
