"""Schedules in virtual time: no test here waits."""

import asyncio
import heapq
import itertools
from collections.abc import Callable

import pytest

from benchmarks.generator.client import Sample
from benchmarks.generator.load import Arrivals, ClosedLoop, Limit, Load, OpenLoop, RealTime, Run, drive
from benchmarks.generator.workloads import Request


class VirtualTime:
    """Time that jumps to the next moment somebody waits for, once everybody waits."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now

    async def until(self, moment: float) -> None:
        if moment > self._now:
            waiter = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (moment, next(self._order), waiter))
            await waiter

    async def run(self) -> None:
        while True:
            for _ in range(20):  # turns of the loop in which what was woken can run and wait anew
                await asyncio.sleep(0)
            if self._sleepers:
                self._now, _, waiter = heapq.heappop(self._sleepers)
                if not waiter.done():
                    waiter.set_result(None)


class Server:
    """Answers after a time that the request's number decides."""

    def __init__(self, timeline: VirtualTime, takes: Callable[[int], float]) -> None:
        self._timeline = timeline
        self._takes = takes
        self.in_flight = self.most = 0

    async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
        sent_at = self._timeline.now()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            await self._timeline.until(sent_at + self._takes(request.index))
        finally:
            self.in_flight -= 1
        now = self._timeline.now()
        return Sample(sent_at if due_at is None else due_at, sent_at, now, now, now, output_tokens=1)


def request(index: int) -> Request:
    return Request(index, "word", 1, 1)


async def run(
    load: Load, limit: Limit, takes: Callable[[int], float] = lambda _: 1.0, *, stop_at: float | None = None
) -> tuple[Run, Server]:
    timeline, stop = VirtualTime(), asyncio.Event()
    server = Server(timeline, takes)

    async def stopper() -> None:
        if stop_at is not None:
            await timeline.until(stop_at)
            stop.set()

    tasks = [asyncio.create_task(timeline.run()), asyncio.create_task(stopper())]
    try:
        return await drive(server, request, load, limit, timeline=timeline, stop=stop), server
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_closed_loop_keeps_its_number_in_flight() -> None:
    result, server = await run(ClosedLoop(3), Limit(requests=9))
    assert server.most == 3
    assert len(result.samples) == 9
    assert result.ended_at == 3.0


async def test_a_closed_loop_waits_for_what_it_began_before_time_was_up() -> None:
    result, _ = await run(ClosedLoop(1), Limit(seconds=2.5))
    assert [sample.started_at for sample in result.samples] == [0.0, 1.0, 2.0]
    assert result.ended_at == 3.0
    assert not result.interrupted


async def test_the_earlier_of_two_limits_holds() -> None:
    result, _ = await run(ClosedLoop(1), Limit(requests=2, seconds=100))
    assert len(result.samples) == 2
    result, _ = await run(ClosedLoop(1), Limit(requests=100, seconds=1.5))
    assert len(result.samples) == 2


async def test_an_open_loop_sends_on_time_however_slow_the_answers() -> None:
    load = OpenLoop(2.0, Arrivals.CONSTANT)
    result, server = await run(load, Limit(requests=6), lambda _: 100.0)
    assert sorted(sample.sent_at for sample in result.samples) == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert server.most == 6


async def test_an_open_loop_counts_from_when_a_request_was_due() -> None:
    class Sluggish(VirtualTime):
        async def until(self, moment: float) -> None:
            await super().until(moment if moment != 1.0 else 4.0)  # the generator is held up

    timeline = Sluggish()
    ticking = asyncio.create_task(timeline.run())
    load, limit = OpenLoop(1.0, Arrivals.CONSTANT), Limit(requests=4)
    server = Server(timeline, lambda _: 0.25)
    result = await drive(server, request, load, limit, timeline=timeline, stop=asyncio.Event())
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    seen = sorted((sample.started_at, sample.ended_at) for sample in result.samples)
    assert seen == [(0.0, 0.25), (1.0, 4.25), (2.0, 4.25), (3.0, 4.25)]


async def test_stopping_keeps_what_is_complete_and_counts_what_was_cut_off() -> None:
    result, server = await run(
        ClosedLoop(2), Limit(seconds=100), lambda n: 1.0 if n < 4 else 50.0, stop_at=5.0
    )
    assert result.interrupted
    assert (len(result.samples), result.unfinished) == (4, 2)
    assert result.ended_at == 5.0
    assert server.in_flight == 0


async def test_a_stopped_open_loop_ends_too() -> None:
    result, server = await run(OpenLoop(1.0, Arrivals.CONSTANT), Limit(), lambda _: 10.0, stop_at=3.5)
    assert (len(result.samples), result.unfinished, server.in_flight) == (0, 4, 0)


async def test_a_fault_of_the_program_is_not_swallowed() -> None:
    class Broken:
        async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
            raise ZeroDivisionError

    with pytest.raises(ExceptionGroup) as caught:
        await drive(
            Broken(), request, ClosedLoop(2), Limit(requests=2), timeline=RealTime(), stop=asyncio.Event()
        )
    assert caught.group_contains(ZeroDivisionError)


def test_arrivals_repeat_by_seed_and_keep_the_rate() -> None:
    def first(load: OpenLoop, count: int) -> list[float]:
        return list(itertools.islice(load.offsets(), count))

    assert first(OpenLoop(5, seed=1), 50) == first(OpenLoop(5, seed=1), 50)
    assert first(OpenLoop(5, seed=1), 50) != first(OpenLoop(5, seed=2), 50)
    moments = first(OpenLoop(100, seed=3), 5000)
    assert moments == sorted(moments)
    assert moments[-1] == pytest.approx(50, rel=0.1)
    gaps = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert sum(gap > 0.02 for gap in gaps) / len(gaps) == pytest.approx(
        0.135, abs=0.03
    )  # e^-2: it is Poisson


async def test_real_time_never_returns_early() -> None:
    timeline = RealTime()
    for ahead in (-1.0, 0.0, 0.0004, 0.0035):
        moment = timeline.now() + ahead
        await timeline.until(moment)
        assert timeline.now() >= moment
