"""Requests are sent as a load says, until its limit.

Owns the tasks that follow the schedule, and the book of what they saw. It sees a request only as something
to be sent, so that tests run it in virtual time; must not know HTTP or statistics.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.generator.client import Clock, Sample
from benchmarks.generator.loads import FIRST, WHOLE, ClosedLoop, Limit, Load, Share, in_vain
from benchmarks.generator.workloads import Request
from benchmarks.stopping import unless

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


@dataclass(slots=True)
class Run:
    """What a load has seen. The times are its timeline's.

    Attributes:
        began_at: start of the first request's schedule.
        ended_at: end of the last request, or the moment of interruption.
        samples: one per ended request, in the order of ending.
        unfinished: requests cut off by an interruption; nothing is said of them.
        conversations: one more than the highest number of a conversation that was begun.
        in_vain: it ended before its limit, since nothing was ever answered.
    """

    began_at: float
    ended_at: float
    samples: list[Sample] = field(default_factory=list)
    unfinished: int = 0
    interrupted: bool = False
    conversations: int = 0
    in_vain: bool = False


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
    """Send requests as the load says until its limit, or until ``loads.in_vain``; wait for those begun.

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
    ended = await unless(stop, driver.run())
    return driver.finish(interrupted=not ended)


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
        self._begun = self._answered = self._first_failed = 0

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
            is_first = self._begun < FIRST
            self._begun += 1
            sample = await self._sender.send(request, due_at=due_at)
            self._note(sample, is_first=is_first)
            if request.following is None or sample.error is not None:
                break
            due_at = sample.ended_at + request.think_s
            if not self._may_begin(due_at, turn + 1):
                return False
            request = request.following("".join(request.said or ()))
            await self._timeline.until(due_at)
        return True

    def _note(self, sample: Sample, *, is_first: bool) -> None:
        self._run.samples.append(sample)
        if sample.error is None:
            self._answered += 1
        elif is_first:
            self._first_failed += 1
        self._tell(sample)

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
        limit, seconds = self._limit, moment - self._run.began_at
        if limit.requests is not None and position >= limit.requests:
            return False
        if limit.seconds is not None and seconds >= limit.seconds:
            return False
        if in_vain(failed=self._first_failed, answered=self._answered, seconds=seconds):
            self._run.in_vain = True
        return not self._run.in_vain
