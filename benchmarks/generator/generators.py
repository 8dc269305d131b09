"""Who generates a load: this process, or several of its own making (``pool``); both do it by one interface.

Owns the interface and the generator in this process. Must not know what is made of the samples.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from benchmarks.generator.client import Client, Clock, Sample
from benchmarks.generator.driving import RealTime, Run, drive
from benchmarks.generator.files import ask_for_all
from benchmarks.generator.loads import WHOLE, Limit, Load, Share
from benchmarks.generator.target import Target
from benchmarks.generator.use import ProcessUse, UseMeter
from benchmarks.generator.workloads import Source


@dataclass(frozen=True, slots=True)
class Phase:
    """One stretch of load: a warm-up, a measurement, a step of a ramp.

    Attributes:
        first: number of its first conversation; phases that share none find nothing of each other in caches.
    """

    load: Load
    limit: Limit
    first: int = 0


@dataclass(frozen=True, slots=True)
class Driven:
    """What came of a phase.

    Attributes:
        uses: what each generator process took.
        lost: processes that ended by themselves, in words; what they saw is missing.
    """

    run: Run
    uses: tuple[ProcessUse, ...]
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tally:
    """So many requests more have ended."""

    done: int = 0
    failed: int = 0
    tokens: int = 0


OnTally = Callable[[Tally], None]


def _ignore(_: Tally) -> None:
    """For who does not want to hear of it."""


class Generator(Protocol):
    """Drives one target. An async context manager."""

    async def __aenter__(self) -> Self:
        """Make ready."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything that belongs to it."""

    async def drive(self, phase: Phase, *, stop: asyncio.Event, tell: OnTally = _ignore) -> Driven:
        """Drive the phase; setting ``stop`` ends it early and keeps what was seen."""


class LocalGenerator:
    """This process, or as a worker one share of a load."""

    def __init__(
        self,
        target: Target,
        source: Source,
        *,
        share: Share = WHOLE,
        core: int | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self._client = Client(target, clock=clock)
        self._source = source
        self._share = share
        self._core = core
        self._clock = clock
        self._timeline = RealTime(clock)

    async def __aenter__(self) -> Self:
        ask_for_all()
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def drive(
        self, phase: Phase, *, stop: asyncio.Event, tell: OnTally = _ignore, begin_at: float | None = None
    ) -> Driven:
        """Drive the phase, from ``begin_at`` of the clock on where that is said."""
        source, first = self._source, phase.first
        async with UseMeter(self._clock) as meter:
            run = await drive(
                self._client,
                lambda number: source.request(first + number),
                phase.load,
                phase.limit,
                timeline=self._timeline,
                stop=stop,
                on_sample=lambda sample: tell(tally_of(sample)),
                turns=lambda number: source.turns_of(first + number),
                share=self._share,
                begin_at=begin_at,
            )
        use = meter.read(index=self._share.index, core=self._core, requests=len(run.samples))
        return Driven(run, (use,))


def tally_of(sample: Sample) -> Tally:
    """One request that has ended."""
    return Tally(1, int(sample.error is not None), sample.output_tokens)
