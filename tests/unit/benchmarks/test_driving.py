"""Schedules in virtual time: no test here waits."""

import asyncio
import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.generator.client import Sample
from benchmarks.generator.driving import RealTime, Run, drive
from benchmarks.generator.loads import WHOLE, Arrivals, ClosedLoop, Limit, Load, OpenLoop, Replay, Share
from benchmarks.generator.pauses import Pause
from benchmarks.generator.workloads import Fixed, Message, Request, Uniform, Workload
from benchmarks.serving.evaluating import Rules, evaluate
from benchmarks.serving.remarks import remarks


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


# -- bursts and replays --------------------------------------------------------------------------------------


def gaps_of(load: OpenLoop, count: int) -> list[float]:
    moments = [0.0, *itertools.islice(load.offsets(), count)]
    return [later - earlier for earlier, later in itertools.pairwise(moments)]


@pytest.mark.parametrize("shape", [0.1, 0.5, 1.0, 4.0])
def test_bursts_have_the_mean_and_the_spread_of_vllms_gamma_distribution(shape: float) -> None:
    # numpy.random.gamma(shape, 1 / (rate * shape)): mean 1/rate, variance 1/(rate^2 * shape).
    gaps = gaps_of(OpenLoop(20.0, Arrivals.BURST, 1, shape), 40_000)
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(1 / 20, rel=0.05)
    assert deviation * 20 == pytest.approx(shape**-0.5, rel=0.05)


@given(st.integers(0, 1 << 31), st.floats(0.01, 1000))
def test_a_burstiness_of_one_is_poisson(seed: int, rate: float) -> None:
    burst, poisson = (OpenLoop(rate, arrivals, seed) for arrivals in (Arrivals.BURST, Arrivals.POISSON))
    assert gaps_of(burst, 50) == pytest.approx(gaps_of(poisson, 50))


async def test_a_replay_sends_when_the_trace_did_and_ends_with_it() -> None:
    result, _ = await run(Replay((0.0, 1.0, 1.0, 5.0), speed=2.0), Limit(), lambda _: 10.0)
    assert sorted(sample.sent_at for sample in result.samples) == [0.0, 0.5, 0.5, 2.5]
    assert result.ended_at == 12.5
    result, _ = await run(Replay((0.0, 1.0, 1.0, 5.0)), Limit(seconds=3))
    assert len(result.samples) == 3


# -- conversations -------------------------------------------------------------------------------------------


class Talker(Server):
    """Says which request it answers, so that the next turn can be seen to send it back."""

    def __init__(self, timeline: VirtualTime, takes: Callable[[int], float], fails: int = -1) -> None:
        super().__init__(timeline, takes)
        self.asked: list[tuple[float, Request]] = []
        self._fails = fails

    async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
        self.asked.append((self._timeline.now(), request))
        sample = await super().send(request, due_at=due_at)
        if len(self.asked) - 1 == self._fails:
            return Sample(sample.started_at, sample.sent_at, sample.ended_at, error="http_503")
        if request.said is not None:
            request.said.extend(["answer ", f"to turn {len(request.history) // 2}"])
        return sample


@dataclass
class Talk:
    result: Run
    server: Talker

    def of(self, conversation: int) -> list[tuple[float, Request]]:
        return [each for each in self.server.asked if each[1].index == conversation]


async def talk(
    load: Load, limit: Limit, workload: Workload, *, share: Share = WHOLE, fails: int = -1
) -> Talk:
    timeline = VirtualTime()
    ticking = asyncio.create_task(timeline.run())
    server = Talker(timeline, lambda _: 1.0, fails)
    result = await drive(
        server, workload.request, load, limit,
        timeline=timeline, stop=asyncio.Event(), turns=workload.turns_of, share=share,
    )  # fmt: skip
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    return Talk(result, server)


THREE_TURNS = Workload(Fixed(4), Fixed(1), turns=Fixed(3), think=Pause("fixed", (2.0,)))


async def test_each_turn_sends_what_was_said_before_with_the_real_answers() -> None:
    talked = await talk(ClosedLoop(1), Limit(requests=3), THREE_TURNS)
    requests = [request for _, request in talked.of(0)]
    assert [len(request.history) for request in requests] == [0, 2, 4]
    for before, after in itertools.pairwise(requests):
        said = (
            Message("user", before.prompt),
            Message("assistant", f"answer to turn {len(before.history) // 2}"),
        )
        assert after.history == (*before.history, *said)


async def test_a_turn_is_due_after_the_answer_and_the_time_to_think() -> None:
    talked = await talk(ClosedLoop(2), Limit(requests=12), THREE_TURNS)
    for conversation, begins in ((0, 0.0), (1, 0.0), (2, 7.0), (3, 7.0)):
        assert [at for at, _ in talked.of(conversation)] == [begins, begins + 3, begins + 6]
    assert sorted(sample.started_at for sample in talked.result.samples) == [
        sent for at in (0.0, 3.0, 6.0, 7.0, 10.0, 13.0) for sent in (at, at)
    ]


async def test_conversations_arrive_by_the_rate_however_long_they_are() -> None:
    talked = await talk(OpenLoop(1.0, Arrivals.CONSTANT), Limit(requests=9), THREE_TURNS)
    assert [[at for at, _ in talked.of(number)] for number in range(3)] == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


async def test_limits_count_requests_and_cut_a_conversation_short() -> None:
    talked = await talk(ClosedLoop(1), Limit(requests=4), THREE_TURNS)
    assert [request.index for _, request in talked.server.asked] == [0, 0, 0, 1]
    assert talked.result.conversations == 2
    talked = await talk(ClosedLoop(1), Limit(seconds=5.5), THREE_TURNS)
    assert [at for at, _ in talked.server.asked] == [0.0, 3.0]


async def test_a_conversation_ends_where_it_gets_no_answer() -> None:
    talked = await talk(ClosedLoop(1), Limit(requests=6), THREE_TURNS, fails=1)
    assert [request.index for _, request in talked.server.asked] == [0, 0, 1, 1, 1]


async def test_stopping_while_people_think_leaves_nothing_unfinished() -> None:
    timeline, stop = VirtualTime(), asyncio.Event()
    server = Talker(timeline, lambda _: 1.0)

    async def stopper() -> None:
        await timeline.until(2.0)
        stop.set()

    tasks = [asyncio.create_task(timeline.run()), asyncio.create_task(stopper())]
    result = await drive(
        server, THREE_TURNS.request, ClosedLoop(2), Limit(), timeline=timeline, stop=stop, turns=lambda _: 3
    )
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (len(result.samples), result.unfinished, result.interrupted) == (2, 0, True)


# -- shares of several processes -----------------------------------------------------------------------------

loads = st.one_of(
    st.integers(1, 9).map(ClosedLoop),
    st.floats(0.5, 50).map(lambda rate: OpenLoop(rate, Arrivals.BURST, 3, 0.5)),
    st.lists(st.floats(0, 9), min_size=1, max_size=20).map(lambda moments: Replay(tuple(sorted(moments)))),
)


@given(loads, st.integers(1, 9), st.integers(0, 1000))
def test_every_conversation_and_every_stream_is_one_share_s(load: Load, count: int, number: int) -> None:
    shares = [Share(index, count) for index in range(count)]
    assert sum(share.takes(number, load) for share in shares) == 1
    if isinstance(load, ClosedLoop):
        assert sum(share.streams(load) for share in shares) == load.concurrency


@given(loads, st.integers(1, 4), st.integers(1, 40), st.integers(0, 9))
async def test_all_shares_together_are_the_whole_load(
    load: Load, count: int, requests: int, seed: int
) -> None:
    if isinstance(load, ClosedLoop):
        count = min(count, load.concurrency)
    workload = Workload(Fixed(4), Fixed(1), seed=seed, turns=Uniform(1, 3))
    limit = Limit(requests=requests)
    whole = await talk(load, limit, workload)
    parts = [await talk(load, limit, workload, share=Share(index, count)) for index in range(count)]

    def sent(talks: list[Talk]) -> list[tuple[float, str, int]]:
        asked = [each for one in talks for each in one.server.asked]
        opened = not isinstance(load, ClosedLoop)
        return sorted((at if opened else 0.0, each.prompt, len(each.history)) for at, each in asked)

    assert sent(parts) == sent([whole])
    assert len(sent([whole])) == sum(len(one.result.samples) for one in parts)
    if not isinstance(load, Replay):
        assert len(sent(parts)) == requests


async def test_a_schedule_that_lies_behind_still_lets_others_work() -> None:
    heard = asyncio.Event()
    asyncio.get_running_loop().call_soon(heard.set)
    timeline = RealTime()
    for _ in range(3):
        await timeline.until(timeline.now() - 1)
    assert heard.is_set()


async def test_an_open_loop_that_nobody_can_keep_up_with_ends() -> None:
    class Slow(VirtualTime):
        async def until(self, moment: float) -> None:
            await super().until(max(moment, self._now + 0.5))  # two requests a second, whatever is due

    timeline = Slow()
    ticking = asyncio.create_task(timeline.run())
    load, limit = OpenLoop(1e9, Arrivals.CONSTANT), Limit(seconds=4.0)
    server = Server(timeline, lambda _: 0.5)
    result = await drive(server, request, load, limit, timeline=timeline, stop=asyncio.Event())
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    assert len(result.samples) <= 10
    assert max(sample.sent_at - sample.started_at for sample in result.samples) >= 3.5


class Refusing:
    """Fails each request after a moment, but for those whose number says otherwise."""

    def __init__(self, timeline: VirtualTime, answers: Callable[[int], float | None]) -> None:
        self._timeline = timeline
        self._answers = answers
        self.sent = 0

    async def send(self, request: Request, *, due_at: float | None = None) -> Sample:
        sent_at, takes = self._timeline.now(), self._answers(request.index)
        self.sent += 1
        await self._timeline.until(sent_at + (0.02 if takes is None else takes))
        now, error = self._timeline.now(), "http_429" if takes is None else None
        return Sample(sent_at if due_at is None else due_at, sent_at, now, error=error)


async def refused(load: Load, limit: Limit, answers: Callable[[int], float | None] = lambda _: None) -> Run:
    timeline = VirtualTime()
    ticking = asyncio.create_task(timeline.run())
    server = Refusing(timeline, answers)
    found = await drive(server, request, load, limit, timeline=timeline, stop=asyncio.Event())
    ticking.cancel()
    await asyncio.gather(ticking, return_exceptions=True)
    assert server.sent == len(found.samples)  # those that were begun are waited for
    return found


@pytest.mark.parametrize("load", [ClosedLoop(4), OpenLoop(200.0, Arrivals.CONSTANT)])
async def test_a_load_that_only_fails_ends_early(load: Load) -> None:
    found = await refused(load, Limit(seconds=10_000.0))
    assert found.in_vain
    assert not found.interrupted
    assert found.ended_at == pytest.approx(3.0, abs=0.1)
    assert len(found.samples) == pytest.approx(600, rel=0.05)


async def test_a_load_that_fails_seldom_enough_to_be_small_goes_on_to_its_limit() -> None:
    found = await refused(OpenLoop(10.0, Arrivals.CONSTANT), Limit(seconds=25.0))
    assert (len(found.samples), found.in_vain) == (250, False)


async def test_an_endpoint_that_comes_back_at_once_is_measured() -> None:
    found = await refused(ClosedLoop(20), Limit(seconds=10.0), lambda n: None if n < 1000 else 0.02)
    assert not found.in_vain
    assert found.ended_at == pytest.approx(10.0, abs=0.1)


async def test_slow_answers_among_quick_refusals_are_waited_for() -> None:
    found = await refused(ClosedLoop(20), Limit(seconds=8.0), lambda n: 5.0 if n == 7 else None)
    assert not found.in_vain
    assert found.ended_at == pytest.approx(8.0, abs=0.1)


async def test_an_end_in_vain_is_told_with_its_reason() -> None:
    run = await refused(ClosedLoop(4), Limit(seconds=10_000.0))
    evaluation = evaluate(run, Rules(), open_loop=False, ignore_eos=True)
    told = {remark.code: remark.text for remark in remarks(run, evaluation)}
    assert "http_429" in told["ended_early"]
    assert [doubt.code for doubt in evaluation.doubts if doubt.refuses] == ["errors_over_bound"]
