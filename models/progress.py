"""How far a pull is: what the caller is told, and how work in threads and child processes says it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

Phase = Literal["queued", "downloading", "verifying", "done"]

# Ten reports a second move a bar smoothly, and cost nothing.
REPORT_INTERVAL_S = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a pull is, within one phase; bytes. `total_bytes` is None while nobody knows it."""

    phase: Phase
    done_bytes: int
    total_bytes: int | None


class Gauge:
    """The state of one pull. Work sets plain numbers on it, from any thread; the event loop looks at them."""

    def __init__(self, on_progress: Callable[[Progress], None]) -> None:
        self.total: int | None = None
        self._on_progress = on_progress
        self._phase: Phase = "queued"
        self._done = 0
        self._measure: Callable[[], int] | None = None
        self._last: Progress | None = None

    def enter(self, phase: Phase, total: int | None, done: int = 0) -> None:
        """Begin a phase and report it at once; on the event loop only."""
        self._phase, self.total, self._done, self._measure = phase, total, done, None
        self.report()

    def reach(self, done: int) -> None:
        """Say how many bytes of the phase are done."""
        self._done = max(self._done, done)

    def measure_with(self, measure: Callable[[], int]) -> None:
        """Ask `measure` at each report, for work that cannot say itself how far it is."""
        self._measure = measure

    def report(self) -> None:
        """Tell the caller, unless nothing changed; on the event loop only."""
        if self._measure is not None:
            self.reach(self._measure())
        done = self._done if self.total is None else min(self._done, self.total)
        now = Progress(phase=self._phase, done_bytes=done, total_bytes=self.total)
        if now != self._last:
            self._last = now
            self._on_progress(now)


@asynccontextmanager
async def reporting(gauge: Gauge) -> AsyncIterator[None]:
    """Report regularly during the block; what the callback raises comes out of the block."""
    task = asyncio.create_task(_report_forever(gauge), name="pull progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def _report_forever(gauge: Gauge) -> None:
    while True:
        await asyncio.sleep(REPORT_INTERVAL_S)
        gauge.report()
