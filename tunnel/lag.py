"""How late the event loop is: the one number that shows when something blocks it.

Owns the measuring. Must not know what else runs in the loop.
"""

import asyncio
from collections.abc import Callable

EVERY_S = 1.0


async def watch_lag(observe: Callable[[float], None], every_s: float = EVERY_S) -> None:
    """Tell, again and again until cancelled, how many seconds a timer came too late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every_s
        await asyncio.sleep(every_s)
        observe(max(0.0, loop.time() - due))
