"""Work that ends early: what every measurement does once it is told to stop.

Owns that alone. Must not know who stops it (``command.interrupts``) or what is measured.
"""

import asyncio
from collections.abc import Coroutine


async def unless(stop: asyncio.Event, work: Coroutine[object, object, object]) -> bool:
    """Do the work, and cancel it once `stop` is set; what it leaves behind it must keep outside of itself.

    Returns:
        Whether it came to its end.

    Raises:
        Exception: what the work raised, where it was not stopped.
    """
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        ended = working.done()
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
    if ended:
        working.result()
    return ended
