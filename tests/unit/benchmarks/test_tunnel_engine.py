"""The scripted engine's pace, on a clock that the test sets."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import pytest

from benchmarks.generator.exchange import Reply
from benchmarks.stacks.schedules import Schedule
from benchmarks.stacks.scripted_engine import Answer, Pacer


@dataclass
class SetLoop:
    """What a pacer uses of an event loop."""

    seconds: float = 100.0
    timers: list[Callable[[], None]] = field(default_factory=list)

    def time(self) -> float:
        return self.seconds

    def call_later(self, _delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        self.timers.append(callback)
        return asyncio.TimerHandle.__new__(asyncio.TimerHandle)

    def pass_ms(self, milliseconds: int) -> None:
        """Let time pass at once, as for a process that was not given the processor."""
        self.seconds += milliseconds / 1000 + 1e-6
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def run_ms(self, milliseconds: int) -> None:
        for _ in range(milliseconds):
            self.pass_ms(1)


@dataclass
class Client:
    """What was written, when, and whether it was the end."""

    loop: SetLoop = field(default_factory=SetLoop)
    written: list[tuple[float, bytes]] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    def asks(self, count: int, interval_ms: int = 5) -> Answer:
        answer = Answer(
            lambda data: self.written.append((self.loop.seconds, data)),
            Pacer(self.loop),
            schedule=Schedule(interval_ms),
            count=count,
            on_end=lambda: self.ended.append(self.loop.seconds),
        )
        answer.begin()
        return answer

    def gaps_ms(self) -> list[int]:
        times = [at for at, data in self.written if b'"sent_at"' in data]
        return [round((after - before) * 1000) for before, after in pairwise(times)]


def test_an_answer_is_a_chat_completion_with_its_times() -> None:
    client = Client()
    client.asks(3)
    client.loop.run_ms(20)
    reply = Reply(streaming=True)
    for moment, data in client.written:
        reply.feed(data, moment)
    reply.verdict()
    assert (reply.token_chunks, len(reply.delays), len(client.ended)) == (3, 3, 1)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3
    first = client.written[0][1].partition(b"data: ")[2].partition(b"\n\n")[0]
    assert json.loads(first)["model"] == "scripted-5ms"


def test_the_first_chunk_comes_at_once_and_the_others_in_step() -> None:
    client = Client()
    client.asks(6)
    assert len(client.written) == 1
    client.loop.run_ms(40)
    first, *others = client.gaps_ms()
    assert 1 <= first <= 5
    assert others == [5, 5, 5, 5]


def test_streams_lie_evenly_over_the_interval() -> None:
    pacer = Pacer(SetLoop())
    phases = [pacer.phase(20) for _ in range(64)]
    assert set(phases) == set(range(1, 21))
    assert max(phases.count(phase) for phase in phases) <= 5


def test_a_late_engine_sends_no_two_chunks_at_once() -> None:
    client = Client()
    client.asks(8)
    client.loop.run_ms(6)
    before = len(client.written)
    client.loop.pass_ms(50)
    assert len(client.written) == before + 1
    client.loop.run_ms(40)
    assert min(client.gaps_ms()[1:]) >= 1
    assert len(client.ended) == 1


def test_a_slow_reader_holds_its_stream() -> None:
    client = Client()
    answer = client.asks(4)
    answer.paused = True
    client.loop.run_ms(50)
    assert len(client.written) == 1
    answer.resume()
    client.loop.run_ms(20)
    assert len(client.ended) == 1


def test_nothing_is_sent_to_who_has_gone() -> None:
    client = Client()
    client.asks(4).stopped = True
    client.loop.run_ms(50)
    assert (len(client.written), client.ended) == (1, [])


@pytest.mark.parametrize("count", [1, 2])
def test_the_timer_rests_when_nothing_is_due(count: int) -> None:
    client = Client()
    client.asks(count)
    client.loop.run_ms(20)
    assert client.loop.timers == []
