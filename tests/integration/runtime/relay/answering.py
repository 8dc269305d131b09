"""How the scripted engine answers a chat: events one by one, their usage, and the end of all."""

import asyncio
from typing import Any

DONE = b"data: [DONE]\n\n"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 3,
    "total_tokens": 14,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def answers(pieces: list[bytes], *, last_with_end: bool = False) -> Any:
    async def script(request: Any, connection: Any) -> None:
        await connection.stream_head()
        for piece in pieces:
            await connection.chunk(piece)
            await asyncio.sleep(0.005)  # so that they are separate segments
        await connection.end()

    return script
