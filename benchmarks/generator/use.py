"""What generating a load takes of its own process: processor time, and how late its event loop runs.

Owns the measuring of both; must not know loads. Judging it is the matter of others.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from benchmarks.figures.statistics import percentile
from benchmarks.machine.watch import Watch, Watched


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """What one generator process took during a run. Times are in seconds.

    Attributes:
        index: which of the processes, from 0.
        core: to which it was pinned; none where it was not.
        cpu_s: processor time of the thread that its event loop has: the one that can be full.
        duration_s: over so much time.
        requests: so many it ended.
        watched: how late its event loop woke, and what the clocks did.
    """

    index: int
    core: int | None
    cpu_s: float
    duration_s: float
    requests: int = 0
    watched: Watched = field(default_factory=Watched)

    @property
    def busy(self) -> float:
        """Share of one core."""
        return self.cpu_s / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def lag_p99_s(self) -> float:
        """So late the loop was at most in 99 of 100 looks: as late may a request have left, or be seen."""
        return percentile(self.watched.lags, 99) if self.watched.lags else 0.0

    @property
    def lag_max_s(self) -> float:
        """The latest it was seen."""
        return max(self.watched.lags, default=0.0)


class UseMeter:
    """Watches this thread while it is entered. An async context manager; read it once it is left."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._watch = Watch(monotonic=clock)
        self._began = self._cpu = self._cpu_s = self._duration_s = 0.0

    async def __aenter__(self) -> Self:
        self._began, self._cpu = self._clock(), time.thread_time()
        await self._watch.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._watch.__aexit__(kind, error, trace)
        self._cpu_s, self._duration_s = time.thread_time() - self._cpu, self._clock() - self._began

    def read(self, *, index: int = 0, core: int | None = None, requests: int = 0) -> ProcessUse:
        """What it took."""
        return ProcessUse(index, core, self._cpu_s, self._duration_s, requests, self._watch.seen)


def watched_of(uses: tuple[ProcessUse, ...]) -> Watched:
    """What all processes saw: every look at a loop, and the greatest jump of the clock."""
    lags = tuple(lag for use in uses for lag in use.watched.lags)
    return Watched(lags, max((use.watched.clock_jump_s for use in uses), key=abs, default=0.0))
