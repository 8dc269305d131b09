"""When requests are sent: closed loops, open loops, and how a run ends.

Owns the schedule and the tasks that follow it. It sees a request only as something to be sent, so that
tests run it in virtual time; must not know HTTP or statistics.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from benchmarks.generator.client import Clock, Sample
from benchmarks.generator.workloads import Request

_SPIN_S = 0.001
"""Timers of the event loop have milliseconds; the rest of a wait is spent in turns of the loop."""


class Sender(Protocol):
    """Whatever can send one request: ``Client``, or a stand-in."""

    async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
        """Send it and say what was seen."""


class Timeline(Protocol):
    """Time as a load sees it."""

    def now(self) -> float:
        """Seconds since any fixed moment."""

    async def until(self, moment: float) -> None:
        """Return at that moment or later, never earlier."""


class RealTime:
    """The machine's own time."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock

    def now(self) -> float:
        """Seconds of the clock."""
        return self._clock()

    async def until(self, moment: float) -> None:
        """Sleep, then yield to the loop until it is time: a request sent early would look fast."""
        while (left := moment - self._clock()) > 0:  # noqa: ASYNC110 - it is the clock that is awaited
            await asyncio.sleep(left - _SPIN_S if left > 2 * _SPIN_S else 0)


class Arrivals(StrEnum):
    """How the requests of an open loop are spread: at random as from many people, or evenly."""

    POISSON = "poisson"
    CONSTANT = "constant"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many requests are kept in flight: each is followed by the next once it is answered."""

    concurrency: int

    def __str__(self) -> str:
        return f"{self.concurrency} at a time"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """So many requests a second come on average, however slowly they are answered."""

    rate: float
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0

    def offsets(self) -> Iterator[float]:
        """When each request is due, in seconds from the start; endless and repeatable by the seed."""
        chance = random.Random(f"{self.seed}/arrivals")  # noqa: S311 - repeatable on purpose
        if self.arrivals is Arrivals.CONSTANT:
            yield from (number / self.rate for number in itertools.count())
        moment = 0.0
        while True:
            moment += chance.expovariate(self.rate)
            yield moment

    def __str__(self) -> str:
        return f"{self.rate:g} a second, {self.arrivals.value}"


Load = ClosedLoop | OpenLoop


@dataclass(frozen=True, slots=True)
class Limit:
    """When no further request is begun: after so many, or so many seconds, whichever comes first."""

    requests: int | None = None
    seconds: float | None = None


@dataclass(slots=True)
class Run:
    """What a load has seen. The times are its timeline's.

    Attributes:
        began_at: start of the first request's schedule.
        ended_at: end of the last request, or the moment of interruption.
        samples: one per ended request, in the order of ending.
        unfinished: requests cut off by an interruption; nothing is said of them.
    """

    began_at: float
    ended_at: float
    samples: list[Sample] = field(default_factory=list)
    unfinished: int = 0
    interrupted: bool = False


OnSample = Callable[[Sample], None]


async def drive(
    sender: Sender,
    requests: Callable[[int], Request],
    load: Load,
    limit: Limit,
    *,
    timeline: Timeline,
    stop: asyncio.Event,
    on_sample: OnSample = lambda _: None,
) -> Run:
    """Send requests as the load says until its limit, and wait for the answers of those begun.

    Setting ``stop`` ends the run at once: what was answered by then is returned, the rest cut off.
    """
    driver = _Driver(sender, requests, limit=limit, timeline=timeline, on_sample=on_sample)
    work = driver.closed(load.concurrency) if isinstance(load, ClosedLoop) else driver.opened(load.offsets())
    running = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        interrupted = not running.done()
        for task in (running, stopping):
            task.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
    if not interrupted:
        running.result()
    return driver.finish(interrupted=interrupted)


class _Driver:
    """Sends one run's requests and keeps its book."""

    def __init__(
        self,
        sender: Sender,
        requests: Callable[[int], Request],
        *,
        limit: Limit,
        timeline: Timeline,
        on_sample: OnSample,
    ) -> None:
        self._sender = sender
        self._requests = requests
        self._limit = limit
        self._timeline = timeline
        self._run = Run(timeline.now(), timeline.now())
        self._on_sample = on_sample
        self._begun = 0

    async def closed(self, concurrency: int) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(self._work())

    async def opened(self, offsets: Iterator[float]) -> None:
        async with asyncio.TaskGroup() as group:
            for offset in offsets:
                due_at = self._run.began_at + offset
                if not self._may_begin(due_at):
                    return
                await self._timeline.until(due_at)
                group.create_task(self._one(self._next(), due_at))

    def finish(self, *, interrupted: bool) -> Run:
        run = self._run
        run.interrupted = interrupted
        run.unfinished = self._begun - len(run.samples)
        last = max((sample.ended_at for sample in run.samples), default=run.began_at)
        run.ended_at = self._timeline.now() if interrupted else last
        return run

    async def _work(self) -> None:
        while self._may_begin(self._timeline.now()):
            await self._one(self._next(), None)

    async def _one(self, request: Request, due_at: float | None) -> None:
        sample = await self._sender.send(request, due_at=due_at)
        self._run.samples.append(sample)
        self._on_sample(sample)

    def _may_begin(self, moment: float) -> bool:
        limit = self._limit
        if limit.requests is not None and self._begun >= limit.requests:
            return False
        return limit.seconds is None or moment - self._run.began_at < limit.seconds

    def _next(self) -> Request:
        request = self._requests(self._begun)
        self._begun += 1
        return request
