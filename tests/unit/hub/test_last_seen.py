"""When nodes are noted as seen."""

import asyncio

import pytest

from hub import last_seen
from hub.errors import StorageUnavailable
from hub.last_seen import LastSeen

NOW = 1_700_000_000.0


class Book:
    """Remembers what is written, unless it cannot be."""

    def __init__(self):
        self.written = asyncio.Queue()
        self.error = None

    async def mark_seen(self, node_ids, *, now):
        if self.error is not None:
            raise self.error
        await self.written.put((list(node_ids), now))


@pytest.fixture
def book():
    return Book()


@pytest.fixture
async def seen(book):
    found = LastSeen(book, lambda: {"here"}, lambda: NOW)
    running = asyncio.create_task(found.run())
    yield found
    running.cancel()
    await asyncio.wait([running])


async def test_a_node_that_leaves_is_noted_at_once_and_alone(seen, book):
    seen.left("gone")
    async with asyncio.timeout(10):
        assert await book.written.get() == (["gone"], NOW)


async def test_those_that_are_here_are_noted_now_and_then(book, monkeypatch):
    monkeypatch.setattr(last_seen, "SEEN_EVERY_S", 0.0)
    running = asyncio.create_task(LastSeen(book, lambda: {"b", "a"}, lambda: NOW).run())
    async with asyncio.timeout(10):
        assert await book.written.get() == (["a", "b"], NOW)
        assert await book.written.get() == (["a", "b"], NOW)
    running.cancel()
    await asyncio.wait([running])


async def test_what_could_not_be_written_is_written_with_the_next(book):
    seen = LastSeen(book, lambda: (), lambda: NOW)
    book.error = StorageUnavailable("away")
    seen.left("first")
    await seen.note()
    book.error = None
    seen.left("second")
    await seen.note(["here"])
    assert book.written.get_nowait() == (["first", "here", "second"], NOW)
    await seen.note()
    assert book.written.empty()
