"""When keys were last used is noted sooner or later, and never goes back."""

import asyncio

import pytest

from hub import key_use
from hub.errors import StorageUnavailable
from hub.key_use import KeyUse


class Book:
    def __init__(self):
        self.noted, self.fails = [], False

    async def mark_used(self, used_at):
        if self.fails:
            raise StorageUnavailable("away")
        self.noted.append(dict(used_at))


async def test_it_is_noted_once_with_the_latest_use_of_each_secret():
    book = Book()
    uses = KeyUse(book)
    for secret, at in (("a", 1.0), ("b", 2.0), ("a", 3.0)):
        uses.used(secret, at)
    await uses.note()
    await uses.note()
    assert book.noted == [{"a": 3.0, "b": 2.0}]


async def test_what_cannot_be_noted_waits_and_newer_uses_win(caplog):
    book = Book()
    uses = KeyUse(book)
    uses.used("a", 1.0)
    uses.used("b", 1.0)
    book.fails = True
    await uses.note()
    await uses.note()
    assert [record.event for record in caplog.records] == ["key_use.failed"], "said once an outage"
    uses.used("a", 5.0)
    book.fails = False
    await uses.note()
    assert book.noted == [{"a": 5.0, "b": 1.0}]


async def test_it_goes_on_until_it_is_cancelled(monkeypatch):
    monkeypatch.setattr(key_use, "NOTE_EVERY_S", 0)
    book = Book()
    uses = KeyUse(book)
    task = asyncio.create_task(uses.run())
    uses.used("a", 1.0)
    while not book.noted:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
