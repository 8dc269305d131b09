"""The count of interrupts, in this process; what they mean to a whole program is an integration test's."""

import asyncio
import signal
from collections.abc import Iterator

import pytest

from benchmarks.command import interrupts
from benchmarks.command.interrupts import Interrupts


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(interrupts, "_say", told.append)
    monkeypatch.setattr(interrupts, "hurry", lambda: told.append("hurried"))
    monkeypatch.setattr(interrupts, "kill_all", lambda: told.append("killed"))
    return told


@pytest.fixture
def heeding() -> Iterator[Interrupts]:
    heeding = Interrupts()
    heeding.heed()
    yield heeding
    heeding.restore()


async def test_the_first_stops_and_the_second_hurries(heeding: Interrupts, said: list[str]) -> None:
    stop = asyncio.Event()
    with heeding.stopping(stop):
        signal.raise_signal(signal.SIGINT)
        await stop.wait()
        assert said == [interrupts._WORDS[0]]
        signal.raise_signal(signal.SIGTERM)
    assert said[1:] == [interrupts._WORDS[1], "hurried"]


async def test_one_amid_another_does_not_take_its_part(
    heeding: Interrupts, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(interrupts, "_say", say)
    stop = asyncio.Event()
    with heeding.stopping(stop):
        signal.raise_signal(signal.SIGINT)
        await asyncio.wait_for(stop.wait(), 10)
    assert said == [*interrupts._WORDS[:2], "hurried"]


async def test_one_that_comes_before_there_is_anything_to_stop_stops_it(
    heeding: Interrupts, said: list[str]
) -> None:
    signal.raise_signal(signal.SIGINT)
    stop = asyncio.Event()
    with heeding.stopping(stop):
        assert stop.is_set()


def test_the_third_kills_and_ends_at_once(heeding: Interrupts, said: list[str]) -> None:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert said[-2:] == [interrupts._WORDS[2], "killed"]


def test_afterwards_signals_mean_what_they_meant(said: list[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    heeding = Interrupts()
    heeding.heed()
    heeding.heed()  # again changes nothing
    heeding.restore()
    after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert after == before
