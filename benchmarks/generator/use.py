"""What generating a load takes of its own process: processor time, and how late its event loop runs.

Owns the measuring of both; must not know loads. Judging it is the matter of others.
"""

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

from benchmarks.figures.statistics import percentile

_TICK_S: Final = 0.02
_KEPT: Final = 50_000
"""Ticks of a quarter of an hour; of a longer run the last ones count."""


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one generator process took during a run. Times are in seconds.

    Attributes:
        index: which of the processes, from 0.
        core: to which it was pinned; none where it was not.
        cpu_s: its processor time, user and system.
        duration_s: over so much time.
        requests: so many it ended.
        lag_p99_s: how late the event loop came to what was due, at most in 99 of 100 looks at it: so late may
            a request have left, or an arrival have been seen.
        lag_max_s: the latest that was seen.
    """

    index: int
    core: int | None
    cpu_s: float
    duration_s: float
    requests: int = 0
    lag_p99_s: float = 0.0
    lag_max_s: float = 0.0

    @property
    def busy(self) -> float:
        """Share of one core."""
        return self.cpu_s / self.duration_s if self.duration_s > 0 else 0.0


class UseMeter:
    """Watches this process while it is entered. An async context manager; read it once it is left."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._ticker: asyncio.Task[None] | None = None
        self._began = self._cpu = 0.0
        self._ended: tuple[float, float] | None = None

    async def __aenter__(self) -> Self:
        self._began, self._cpu = time.perf_counter(), time.process_time()
        self._ticker = asyncio.create_task(self._tick(), name="lag of the generator")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended = time.process_time() - self._cpu, time.perf_counter() - self._began
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker

    def read(self, *, index: int = 0, core: int | None = None, requests: int = 0) -> ProcessUse:
        """What it took."""
        assert self._ended is not None
        cpu_s, duration_s = self._ended
        lags = self._lags or [0.0]
        return ProcessUse(index, core, cpu_s, duration_s, requests, percentile(lags, 99), max(lags))

    async def _tick(self) -> None:
        while True:
            due_at = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            if len(self._lags) >= _KEPT:
                del self._lags[: _KEPT // 2]
            self._lags.append(max(0.0, time.perf_counter() - due_at))
