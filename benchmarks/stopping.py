"""Work that ends early: what every measurement does once it is told to stop.

Owns that alone. Must not know who stops it (``command.interrupts``) or what is measured.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final

IN_GOOD_ORDER_S: Final = 3.0
"""For work that listens to its stop, and has to take its figures and end what it started."""


async def unless(
    stop: asyncio.Event, work: Coroutine[object, object, object], *, grace_s: float = 0.0
) -> bool:
    """Do the work, and end it once `stop` is set; what it leaves behind it must keep outside of itself.

    Args:
        stop: ends it.
        work: is cancelled.
        grace_s: seconds that it has to end by itself before that.

    Returns:
        Whether it came to its end before it was stopped.

    Raises:
        Exception: what the work raised, where it was not stopped.
    """
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        ended = not stop.is_set()
        if not ended and grace_s:
            await asyncio.wait({working}, timeout=grace_s)
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
    if ended:
        working.result()
    return ended
