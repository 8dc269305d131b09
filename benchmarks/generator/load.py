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
from typing import Final, Protocol

from benchmarks.generator.client import Clock, Sample
from benchmarks.generator.workloads import Request

_SPIN_S = 0.001
"""Timers of the event loop have milliseconds; the rest of a wait is spent in turns of the loop."""
_LEAST_BEHIND_S = 1.0


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
        """Sleep, then yield to the loop until it is time: a request sent early would look fast.

        It yields once in any case: a schedule that lies behind would else let nothing be sent, nor stopped.
        """
        await asyncio.sleep(0)
        while (left := moment - self._clock()) > 0:  # noqa: ASYNC110 - it is the clock that is awaited
            await asyncio.sleep(left - _SPIN_S if left > 2 * _SPIN_S else 0)


class Arrivals(StrEnum):
    """How the requests of an open loop are spread: at random as from many people, evenly, or in bursts."""

    POISSON = "poisson"
    CONSTANT = "constant"
    BURST = "burst"


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """So many requests are kept in flight: each is followed by the next once it is answered."""

    concurrency: int

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        return {"kind": "closed", "concurrency": self.concurrency}

    def __str__(self) -> str:
        return f"{self.concurrency} at a time"


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """So many conversations a second come on average, however slowly they are answered.

    Attributes:
        rate: a second.
        arrivals: how they are spread.
        seed: decides the moments.
        burstiness: of bursts: the shape of the gamma distribution of the gaps, whose mean stays 1/rate. It is
            that of vLLM's ``bench serve`` (``vllm/benchmarks/serve.py``, ``get_request``): 1 is Poisson, less
            comes in bursts, more comes more evenly. vLLM then stretches the whole schedule to end when it
            should on average; here the gaps stay as they are drawn.
    """

    rate: float
    arrivals: Arrivals = Arrivals.POISSON
    seed: int = 0
    burstiness: float = 1.0

    def offsets(self) -> Iterator[float]:
        """When each is due, in seconds from the start; endless and repeatable by the seed."""
        if self.arrivals is Arrivals.CONSTANT:
            return (number / self.rate for number in itertools.count())
        return itertools.accumulate(self._gaps())

    def _gaps(self) -> Iterator[float]:
        chance = random.Random(f"{self.seed}/arrivals")  # noqa: S311 - repeatable on purpose
        if self.arrivals is Arrivals.POISSON:
            return (chance.expovariate(self.rate) for _ in itertools.count())
        shape = self.burstiness
        return (chance.gammavariate(shape, 1 / (self.rate * shape)) for _ in itertools.count())

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        told = {"kind": "open", "rate": self.rate, "arrivals": self.arrivals.value, "seed": self.seed}
        return told | ({"burstiness": self.burstiness} if self.arrivals is Arrivals.BURST else {})

    def __str__(self) -> str:
        shape = f" {self.burstiness:g}" if self.arrivals is Arrivals.BURST else ""
        return f"{self.rate:g} a second, {self.arrivals.value}{shape}"


@dataclass(frozen=True, slots=True)
class Replay:
    """Requests come when those of a trace did.

    Attributes:
        moments: when each came, in seconds from the first, in order.
        speed: 2 replays it in half the time.
        name: of the trace.
    """

    moments: tuple[float, ...]
    speed: float = 1.0
    name: str = "trace"

    def offsets(self) -> Iterator[float]:
        """When each request is due, in seconds from the start; ends with the trace."""
        return (moment / self.speed for moment in self.moments)

    def as_settings(self) -> dict[str, object]:
        """What it is, ready for JSON."""
        return {"kind": "replay", "trace": self.name, "requests": len(self.moments), "speed": self.speed}

    def __str__(self) -> str:
        speed = "" if self.speed == 1 else f" at {self.speed:g} times its speed"
        return f"{self.name} replayed{speed}"


Load = ClosedLoop | OpenLoop | Replay


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a load that one of several generators takes; all shares together are the whole load.

    An open loop's conversations go round by their number. A closed loop's streams go round, and each
    conversation to the stream whose turn it is: who has more streams has as many more conversations.
    """

    index: int = 0
    count: int = 1

    def streams(self, load: ClosedLoop) -> int:
        """How many of the streams it keeps."""
        return len(range(self.index, load.concurrency, self.count))

    def takes(self, number: int, load: Load) -> bool:
        """Whether conversation ``number`` is one of its own."""
        turn = number % load.concurrency if isinstance(load, ClosedLoop) else number
        return turn % self.count == self.index


WHOLE: Final = Share()


@dataclass(frozen=True, slots=True)
class Limit:
    """When no further request is begun: after so many, or so many seconds, whichever comes first.

    Requests are counted in the order of their conversations, each with all its turns.
    """

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
        conversations: one more than the highest number of a conversation that was begun.
    """

    began_at: float
    ended_at: float
    samples: list[Sample] = field(default_factory=list)
    unfinished: int = 0
    interrupted: bool = False
    conversations: int = 0


OnSample = Callable[[Sample], None]


def _one_turn(_: int) -> int:
    return 1


async def drive(
    sender: Sender,
    requests: Callable[[int], Request],
    load: Load,
    limit: Limit,
    *,
    timeline: Timeline,
    stop: asyncio.Event,
    on_sample: OnSample = lambda _: None,
    turns: Callable[[int], int] = _one_turn,
    share: Share = WHOLE,
    begin_at: float | None = None,
) -> Run:
    """Send requests as the load says until its limit, and wait for the answers of those begun.

    Setting ``stop`` ends the run at once: what was answered by then is returned, the rest cut off.

    Args:
        sender: sends one request.
        requests: the first request of each conversation, by number from 0.
        load: when they are sent.
        limit: when no more are.
        timeline: its time.
        stop: ends it early.
        on_sample: hears of each request that has ended.
        turns: how many requests a conversation has.
        share: which part of the load this is.
        begin_at: when it all begins; at once where it is not said.
    """
    driver = _Driver(
        sender,
        requests,
        turns,
        load,
        limit,
        timeline=timeline,
        share=share,
        begin_at=begin_at,
        tell=on_sample,
    )
    running = asyncio.ensure_future(driver.run())
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


_Numbered = tuple[int, int]
"""A conversation's number, and how many requests come before its first."""


class _Driver:
    """Sends one run's requests and keeps its book."""

    def __init__(
        self,
        sender: Sender,
        requests: Callable[[int], Request],
        turns: Callable[[int], int],
        load: Load,
        limit: Limit,
        *,
        timeline: Timeline,
        share: Share,
        begin_at: float | None,
        tell: OnSample,
    ) -> None:
        self._sender = sender
        self._requests = requests
        self._turns = turns
        self._load = load
        self._limit = limit
        self._timeline = timeline
        self._share = share
        began_at = timeline.now() if begin_at is None else begin_at
        self._run = Run(began_at, began_at)
        self._tell = tell
        self._begun = 0

    async def run(self) -> None:
        await self._timeline.until(self._run.began_at)
        async with asyncio.TaskGroup() as group:
            if isinstance(self._load, ClosedLoop):
                own = (each for each in self._conversations() if self._share.takes(each[0], self._load))
                for _ in range(self._share.streams(self._load)):
                    group.create_task(self._work(own))
            else:
                await self._follow(self._load.offsets(), group)

    def finish(self, *, interrupted: bool) -> Run:
        run = self._run
        run.interrupted = interrupted
        run.unfinished = self._begun - len(run.samples)
        last = max((sample.ended_at for sample in run.samples), default=run.began_at)
        run.ended_at = self._timeline.now() if interrupted else last
        return run

    async def _work(self, conversations: Iterator[_Numbered]) -> None:
        """One stream of a closed loop."""
        for number, first in conversations:
            if not self._may_begin(self._timeline.now(), first):
                return
            if not await self._talk(self._open(number), first, None):
                return

    async def _follow(self, offsets: Iterator[float], group: asyncio.TaskGroup) -> None:
        """The schedule of an open loop."""
        for (number, first), offset in zip(self._conversations(), offsets, strict=False):
            if not self._share.takes(number, self._load):
                continue
            due_at = self._run.began_at + offset
            if not self._may_begin(due_at, first):
                return
            request = self._open(number)  # before it is due: to write a long prompt takes its time
            await self._timeline.until(due_at)
            if self._is_hopeless(due_at):
                return
            group.create_task(self._talk(request, first, due_at))

    def _is_hopeless(self, due_at: float) -> bool:
        """Whether the schedule lies behind by as much time as there was for all of it.

        No generator catches up with that. What was sent late until then refuses the result.
        """
        seconds = self._limit.seconds
        return seconds is not None and self._timeline.now() - due_at > max(seconds, _LEAST_BEHIND_S)

    async def _talk(self, request: Request, first: int, due_at: float | None) -> bool:
        """A whole conversation; false where the limit cut it short.

        It ends where a request fails: there is no answer to go on from.
        """
        for turn in itertools.count(first):
            self._begun += 1
            sample = await self._sender.send(request, due_at=due_at)
            self._run.samples.append(sample)
            self._tell(sample)
            if request.following is None or sample.error is not None:
                break
            due_at = sample.ended_at + request.think_s
            if not self._may_begin(due_at, turn + 1):
                return False
            request = request.following("".join(request.said or ()))
            await self._timeline.until(due_at)
        return True

    def _conversations(self) -> Iterator[_Numbered]:
        first = 0
        for number in itertools.count():
            if self._limit.requests is not None and first >= self._limit.requests:
                return
            yield number, first
            first += self._turns(number)

    def _open(self, number: int) -> Request:
        self._run.conversations = max(self._run.conversations, number + 1)
        return self._requests(number)

    def _may_begin(self, moment: float, position: int) -> bool:
        limit = self._limit
        if limit.requests is not None and position >= limit.requests:
            return False
        return limit.seconds is None or moment - self._run.began_at < limit.seconds
