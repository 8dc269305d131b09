"""Work that is ended early: what it keeps, and what it raises."""

import asyncio

import pytest

from benchmarks.stopping import unless


async def test_what_comes_to_its_end_was_not_stopped() -> None:
    assert await unless(asyncio.Event(), asyncio.sleep(0))


async def test_what_fails_raises() -> None:
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await unless(asyncio.Event(), fails())


async def test_work_that_does_not_listen_is_cancelled_and_cleans_up() -> None:
    stop, done = asyncio.Event(), list[str]()

    async def deaf() -> None:
        done.append("begun")
        stop.set()
        try:
            await asyncio.Event().wait()
        finally:
            done.append("cleaned up")

    assert not await unless(stop, deaf())
    assert done == ["begun", "cleaned up"]
    done.clear()
    assert not await unless(stop, deaf(), grace_s=0.01)
    assert done == ["begun", "cleaned up"]


async def test_work_that_listens_ends_in_good_order_and_was_stopped_all_the_same() -> None:
    stop, kept = asyncio.Event(), list[int]()

    async def listens() -> None:
        while not stop.is_set():
            kept.append(len(kept))
            if len(kept) == 3:
                stop.set()
        await asyncio.sleep(0)  # takes its figures
        kept.append(-1)

    assert not await unless(stop, listens(), grace_s=60)
    assert kept == [0, 1, 2, -1]


async def test_what_fails_after_it_was_stopped_loses_nothing() -> None:
    stop = asyncio.Event()

    async def breaks() -> None:
        await stop.wait()
        raise ConnectionError

    asyncio.get_running_loop().call_soon(stop.set)
    assert not await unless(stop, breaks(), grace_s=60)
