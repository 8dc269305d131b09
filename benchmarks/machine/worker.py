"""One process for synchronous work, which would hold up the event loop here.

Owns its start and its end. Must not know what is done in it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from multiprocessing import get_context
from typing import TypeVar

from benchmarks.machine.processes import end_with_parent

T = TypeVar("T")


class Worker:
    """The process; it does one thing after the other."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    async def do(self, function: Callable[..., T], *arguments: object) -> T:
        """Call the function there. It, its arguments and what it returns must be picklable."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


@asynccontextmanager
async def worker() -> AsyncIterator[Worker]:
    """Start it; leaving ends it at once, whatever it does. Ctrl-C in a terminal does not reach it."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=end_with_parent, initargs=(signal.SIGKILL,)
    ) as pool:
        found = Worker(pool)
        with _out_of_reach():
            starting = asyncio.ensure_future(found.do(os.getpid))
            await asyncio.sleep(0)  # it is started here, and inherits what this thread does not hear
        process = await starting
        try:
            yield found
        finally:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@contextmanager
def _out_of_reach() -> Iterator[None]:
    """Ctrl-C is kept for later; a process that is started meanwhile never hears it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
