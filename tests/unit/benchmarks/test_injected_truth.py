"""What a scripted engine does in virtual time, and what the meter says of it: exactly the same.

Nothing here waits: the engine runs on a clock that the test sets, and its bytes are fed to the meter at the
moments at which it wrote them.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import accumulate, islice, pairwise
from statistics import fmean, median, quantiles

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.figures.doubts import find_stalls
from benchmarks.figures.metrics import measure
from benchmarks.figures.statistics import Summary
from benchmarks.generator.client import Sample
from benchmarks.generator.driving import Run
from benchmarks.generator.exchange import Reply
from benchmarks.stacks.schedules import Schedule, model_name
from benchmarks.stacks.scripted_engine import Answer, Pacer, Record


@dataclass
class SetLoop:
    """What a pacer uses of an event loop: timers of a millisecond, on a clock that jumps."""

    seconds: float = 100.0
    timers: list[Callable[[], None]] = field(default_factory=list)

    def time(self) -> float:
        return self.seconds

    def call_later(self, _delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append(callback)
        return asyncio.TimerHandle.__new__(asyncio.TimerHandle)

    def run(self) -> None:
        for milliseconds in range(1, 1_000_000):
            if not self.timers:
                return
            self.seconds = 100 + milliseconds / 1000 + 1e-7
            timers, self.timers = self.timers, []
            for timer in timers:
                timer()


def ask(schedule: Schedule, count: int, number: int) -> Sample:
    """One answer as the meter sees it."""
    loop, reply, ended = SetLoop(), Reply(streaming=True), []
    answer = Answer(
        lambda data: ended.append(reply.feed(data, loop.seconds)),
        Pacer(loop),
        schedule=schedule,
        count=count,
        number=number,
        on_end=lambda: None,
    )
    answer.begin()
    loop.run()
    reply.verdict()
    assert ended[-1]
    assert reply.usage is not None
    seen = reply.first_token_at, reply.last_token_at, tuple(reply.gaps)
    return Sample(100.0, 100.0, loop.seconds, *seen, output_tokens=reply.usage.completion_tokens or 0)


def check(found: Summary | None, expected: list[float]) -> None:
    assert found is not None
    assert found.count == len(expected)
    assert found.mean == pytest.approx(fmean(expected), abs=1e-6)
    assert found.p50 == pytest.approx(median(expected), abs=1e-6)
    hundredths = quantiles(expected, n=100, method="inclusive")
    assert (found.p90, found.p99) == pytest.approx((hundredths[89], hundredths[98]), abs=1e-6)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(20, 150),
        Schedule(7, 0),
        Schedule(20, 40, jitter_ms=12),
        Schedule(20, 5, stall_ms=2000, every=9),
        Schedule(5, 5, jitter_ms=4, stall_ms=300, every=4),
    ],
)
def test_figures_are_what_was_injected(schedule: Schedule) -> None:
    count, answers = 30, 12
    samples = [ask(schedule, count, number) for number in range(answers)]
    found = measure(Run(100.0, max(sample.ended_at for sample in samples), samples))
    gaps = [[gap / 1000 for gap in islice(schedule.gaps(number), count - 1)] for number in range(answers)]
    first = (schedule.first_ms or 1) / 1000  # what is due at once comes with the next millisecond
    check(found.ttft, [first] * answers)
    check(found.itl, [gap for each in gaps for gap in each])
    check(found.tpot, [fmean(each) for each in gaps])
    check(found.e2el, [first + sum(each) for each in gaps])
    stalls = find_stalls(samples)
    assert stalls.count == (answers * ((count - 1) // schedule.every) if schedule.every else 0)


def test_jitter_is_chance_that_repeats() -> None:
    schedule = Schedule(20, 0, jitter_ms=12)
    one, other = (list(islice(schedule.gaps(number), 500)) for number in (1, 2))
    assert one == list(islice(schedule.gaps(1), 500)) != other
    assert (min(one), max(one)) == (8, 32)
    assert fmean(one) == pytest.approx(20, abs=1)


def test_a_record_is_of_the_engine_itself() -> None:
    loop = SetLoop()
    answer = Answer(lambda _: None, Pacer(loop), schedule=Schedule(5, 5), count=4, on_end=lambda: None)
    answer.begin()
    loop.run()
    assert isinstance(answer.record, Record)
    assert len(answer.record.sent_at) == 4
    times = [answer.record.received_at, *answer.record.sent_at]
    assert all(earlier <= later for earlier, later in pairwise(times))


intervals, jitters = st.integers(10, 500), st.integers(0, 9)
steady = st.builds(Schedule, intervals, st.integers(0, 999), jitters)
schedules = steady | st.builds(
    Schedule, intervals, st.integers(0, 9), jitters, st.integers(1, 99), st.integers(1, 9)
)


@given(schedules)
def test_a_name_says_its_schedule(schedule: Schedule) -> None:
    assert Schedule.of(schedule.model) == schedule
    assert schedule.exact


def test_the_plain_pace_has_the_plain_name() -> None:
    assert model_name(20) == "scripted-20ms"
    assert Schedule.of("scripted-20ms") == Schedule(20)
    assert not Schedule(20).exact


@pytest.mark.parametrize(
    "name",
    ["scripted-0ms", "scripted-ms", "scripted--5ms", "scripted-5", "smollm2", "", "scripted-5ms-jitter2ms",
     "scripted-5ms-first1ms-jitter5ms", "scripted-5ms-first1ms-stall2ms", "scripted-5ms-first1ms "],
)  # fmt: skip
def test_other_names_say_none(name: str) -> None:
    assert Schedule.of(name) is None


def test_arrivals_add_up() -> None:
    sample = ask(Schedule(10, 30), 5, 0)
    assert sample.first_token_at is not None
    moments = list(accumulate(sample.gaps, initial=sample.first_token_at))
    assert moments == pytest.approx([100.03, 100.04, 100.05, 100.06, 100.07], abs=1e-6)
