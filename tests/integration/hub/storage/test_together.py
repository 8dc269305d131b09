"""Several commands in one transaction: all or nothing, and nobody else's."""

import asyncio

import pytest

from hub.errors import AlreadyExists
from tests.integration.hub.storage.audit_log import NOW, check, log_of


async def names(storage):
    return [each.name for each in await storage.organisations.list()]


async def test_what_is_done_together_is_there_together(storage):
    revision = await storage.settings.revision()
    async with storage.together():
        await storage.organisations.create("A", now=NOW)
        assert await names(storage) == ["A"]
        assert await asyncio.create_task(names(storage)) == []
        await storage.organisations.create("B", now=NOW)
    assert await names(storage) == ["A", "B"]
    assert await storage.settings.revision() == revision + 2
    assert await check(storage) == []


async def test_an_error_undoes_all_of_it_with_its_events(storage):
    before = len(await log_of(storage))

    async def half():
        async with storage.together():
            await storage.organisations.create("A", now=NOW)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await half()
    assert await names(storage) == []
    assert len(await log_of(storage)) == before
    await storage.organisations.create("A", now=NOW)
    assert await check(storage) == []


async def test_a_command_that_fails_undoes_itself_alone(storage):
    async with storage.together():
        await storage.organisations.create("A", now=NOW)
        with pytest.raises(AlreadyExists):
            await storage.organisations.create("A", now=NOW)
        await storage.organisations.create("B", now=NOW)
    assert await names(storage) == ["A", "B"]


async def test_nobody_is_kept_waiting_before_the_first_write(storage):
    async with storage.together():
        assert await names(storage) == []
        await asyncio.wait_for(asyncio.create_task(storage.organisations.create("B", now=NOW)), 5)
        assert await names(storage) == ["B"]
        await storage.organisations.create("A", now=NOW)
    assert await names(storage) == ["A", "B"]


async def test_a_task_begun_inside_may_outlive_it(storage):
    go = asyncio.Event()

    async def later():
        await go.wait()
        await storage.organisations.create("B", now=NOW)

    async with storage.together():
        await storage.organisations.create("A", now=NOW)
        task = asyncio.create_task(later())
    go.set()
    await task
    assert await names(storage) == ["A", "B"]
