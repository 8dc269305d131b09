import asyncio
import threading

import pytest

from models.blocking import in_thread
from models.disk import OnBytes
from models.progress import Gauge, Progress, reporting


def test_a_phase_begins_at_once_and_nothing_is_told_twice() -> None:
    seen: list[Progress] = []
    gauge = Gauge(seen.append)
    gauge.enter("downloading", 100)
    gauge.report()
    gauge.reach(40)
    gauge.report()
    gauge.report()
    assert [progress.done_bytes for progress in seen] == [0, 40]


def test_progress_never_goes_back_nor_past_the_end() -> None:
    seen: list[Progress] = []
    gauge = Gauge(seen.append)
    gauge.enter("downloading", 100)
    for done in (50, 30, 120):
        gauge.reach(done)
        gauge.report()
    assert [progress.done_bytes for progress in seen] == [0, 50, 100]
    gauge.enter("verifying", None)
    gauge.reach(7)
    gauge.report()
    assert seen[-1] == Progress(phase="verifying", done_bytes=7, total_bytes=None)


def test_a_phase_can_be_measured_from_outside() -> None:
    seen: list[Progress] = []
    gauge = Gauge(seen.append)
    gauge.enter("downloading", 100)
    gauge.measure_with(lambda: 33)
    gauge.report()
    gauge.enter("verifying", 100)
    gauge.report()
    assert [(progress.phase, progress.done_bytes) for progress in seen] == [
        ("downloading", 0),
        ("downloading", 33),
        ("verifying", 0),
    ]


async def test_a_callback_that_fails_is_heard_of() -> None:
    def fail(progress: Progress) -> None:
        if progress.done_bytes:
            failed.set()
            raise LookupError("no such bar")

    failed = asyncio.Event()
    gauge = Gauge(fail)

    async def work() -> None:
        async with reporting(gauge):
            gauge.reach(1)
            await failed.wait()

    with pytest.raises(LookupError, match="no such bar"):
        await work()


async def test_cancelling_waits_until_the_thread_has_stopped() -> None:
    started, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work(tell: OnBytes) -> None:
        loop.call_soon_threadsafe(started.set)
        try:
            while True:
                tell(1)
        finally:
            ended.set()

    task = asyncio.create_task(in_thread(work))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # an impatient caller gets no earlier end
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_the_work_returns_or_raises_comes_through() -> None:
    seen: list[int] = []

    def work(tell: OnBytes) -> str:
        tell(5)
        return "done"

    assert await in_thread(work, seen.append) == "done"
    assert seen == [5]

    def fail(tell: OnBytes) -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        await in_thread(fail)
