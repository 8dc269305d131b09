"""How far a run is, on standard error: a bar on a terminal, a line now and then anywhere else.

It redraws twice a second from a task of its own, never from a request's path, so that looking at it does
not disturb what is measured. Must not know what is measured.
"""

import asyncio
import time
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from benchmarks.generator.client import Sample
from benchmarks.generator.generators import Tally, tally_of
from benchmarks.generator.loads import Limit

_REDRAW_S: Final = 0.5
_LINE_S: Final = 10.0


class Progress:
    """Counts samples of the phase that is under way. An async context manager."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._label = ""
        self._limit = Limit()
        self._began = self._told = 0.0
        self._done = self._failed = self._tokens = 0
        self._reached: tuple[int, int, str] | None = None

    async def __aenter__(self) -> Self:
        if self._quiet:
            return self
        if self._console.is_terminal:
            self._bar = Bar(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                console=self._console,
                auto_refresh=False,
                transient=True,
            )
            self._bar.start()
        self._ticker = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        if self._bar is not None:
            with suppress(OSError):  # where the terminal is gone, the result must not go with it
                self._bar.stop()

    def phase(self, label: str, limit: Limit) -> None:
        """Something new begins, and goes on for so many requests or seconds."""
        self._label, self._limit = label, limit
        self._began = self._told = time.monotonic()
        self._done = self._failed = self._tokens = 0
        self._reached = None
        if self._bar is not None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(label, total=self._total(), text=self.text())
        elif not self._quiet:
            self._console.print(f"{label} ...", highlight=False)

    def count(self, sample: Sample) -> None:
        """One request of the phase has ended."""
        self.add(tally_of(sample))

    def add(self, tally: Tally) -> None:
        """So many requests of the phase have ended."""
        self._done += tally.done
        self._failed += tally.failed
        self._tokens += tally.tokens

    def reached(self, done: int, total: int, unit: str) -> None:
        """So much of the phase is done, where it is not requests that are counted."""
        self._reached = done, total, unit

    def fraction(self) -> float:
        """How much of the phase is over, 0 to 1."""
        if self._reached is not None:
            done, total, _ = self._reached
            return min(1.0, done / total)
        limit, elapsed = self._limit, time.monotonic() - self._began
        by_requests = self._done / limit.requests if limit.requests else 0.0
        by_time = elapsed / limit.seconds if limit.seconds else 0.0
        return min(1.0, max(by_requests, by_time))

    def text(self) -> str:
        """What has been seen of the phase so far, in words; nothing where there is nothing to count."""
        if self._total() is None:
            return ""
        return f"{self.fraction():.0%}, {self._seen()}"

    def _total(self) -> float | None:
        """None where nobody knows how long it takes: a start, or one request."""
        is_counted = self._reached is not None or self._limit.seconds or (self._limit.requests or 0) > 1
        return 1.0 if is_counted else None

    def _seen(self) -> str:
        if self._reached is not None:
            return "{} of {} {}".format(*self._reached)
        elapsed = max(time.monotonic() - self._began, 1e-9)
        if not self._done and self._limit.seconds:
            return f"{min(elapsed, self._limit.seconds):.0f} of {self._limit.seconds:.0f} s"
        failed = f", {self._failed} failed" if self._failed else ""
        return f"{self._done} requests{failed}, {self._tokens / elapsed:.0f} tokens/s"

    async def _tick(self) -> None:
        with suppress(OSError):  # nobody looks any more
            while True:
                await asyncio.sleep(_REDRAW_S)
                self._draw()

    def _draw(self) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, total=self._total(), completed=self.fraction(), text=self.text(), refresh=True
            )
        elif self._bar is None and time.monotonic() - self._told >= _LINE_S:
            self._told = time.monotonic()
            told = f"{self._label}: {self.text() or f'{self._told - self._began:.0f} s so far'}"
            self._console.print(told, highlight=False)
