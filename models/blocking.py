"""Blocking work off the event loop, so that whoever cancels it can rely on its end.

A thread cannot be killed. `asyncio.to_thread` alone would leave it writing into a folder whose lock is given
back already; here cancelling asks the work to stop and waits until it has.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from models.disk import OnBytes

T = TypeVar("T")


class _Stopped(Exception):
    """Internal: raised inside the work when nobody wants it any more."""


async def in_thread(work: Callable[[OnBytes], T], on_bytes: OnBytes = lambda _: None) -> T:
    """Run `work` in a thread. It calls what it is given with the bytes done, and is stopped there."""
    unwanted = threading.Event()

    def tell(done: int) -> None:
        if unwanted.is_set():
            raise _Stopped
        on_bytes(done)

    running = asyncio.ensure_future(asyncio.to_thread(work, tell))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        unwanted.set()
        await settled(running)
        raise


async def settled(future: "asyncio.Future[T]") -> None:
    """Wait until `future` is done, come what may, and take note of how it ended. For clean-up only."""
    while not future.done():
        try:
            await asyncio.wait({future})
        except asyncio.CancelledError:
            # The caller is being cancelled already and raises that on; this only makes sure it comes after.
            continue
    if not future.cancelled():
        future.exception()
