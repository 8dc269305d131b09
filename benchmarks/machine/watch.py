"""Looks at the generator's own event loop and at the machine's clocks while something is measured.

Owns the looking: how late the loop wakes a task that asked for a moment, and by how much the clock of the day
drifts from the one that only runs on. What it means for a result is others' matter.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

LOOK_S: Final = 0.02
"""Fifty looks a second take a thousandth of a core."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What was seen.

    Attributes:
        lags: how much later than asked each wake-up came, in seconds; timers themselves have milliseconds.
        clock_jump_s: the farthest the clock of the day got from the monotonic one since the start.
    """

    lags: tuple[float, ...] = ()
    clock_jump_s: float = 0.0


class Watch:
    """An async context manager around a measurement; `seen` tells of it, at any time.

    Args:
        monotonic: seconds that never go back, and stand still while the machine is suspended.
        wall: seconds of the clock of the day.
    """

    def __init__(
        self, *, monotonic: Callable[[], float] = time.perf_counter, wall: Callable[[], float] = time.time
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._offset = 0.0
        self._jump = 0.0
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._offset = self._wall() - self._monotonic()
        self._task = asyncio.create_task(self._look(), name="watch")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._compare()
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def seen(self) -> Watched:
        """What was seen so far."""
        return Watched(tuple(self._lags), self._jump)

    async def _look(self) -> None:
        while True:
            due = self._monotonic() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self._lags.append(max(0.0, self._monotonic() - due))
            self._compare()

    def _compare(self) -> None:
        jump = self._wall() - self._monotonic() - self._offset
        if abs(jump) > abs(self._jump):
            self._jump = jump
