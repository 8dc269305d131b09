"""A Hub that is killed during a write with an `Idempotency-Key`: done once, never twice, and answered."""

import asyncio
from collections import Counter

import httpx
import pytest

from hub.storage.repositories import Storage
from tests.integration.hub.api.admin.processes import MOMENTS, prepared, running

ASKERS = 6
KILLED_AFTER = (1, 4, 9)
"""Answers that have come when the Hub is killed; ASKERS requests are each somewhere then."""


async def made(config):
    """How often each key was made, by what is there and by what the audit log tells."""
    async with await Storage.open(config.database) as storage:
        keys = await storage.keys.list()
        names = {key.id: key.name for key in keys}
        told = await storage.audit.page(actions=["key.created"], limit=1000)
    return Counter(key.name for key in keys), Counter(names[event.subject] for event in told)


async def test_killed_at_each_step_it_does_the_rest_or_gives_the_answer(config):
    _, token = await prepared(config.database)
    for moment in MOMENTS:
        async with running(config, token, die=moment) as hub:
            with pytest.raises(httpx.TransportError):
                await hub.make_key(moment)
            await hub.killed()
    async with running(config, token) as hub:
        answers = {moment: await hub.make_key(moment) for moment in MOMENTS}
        again = {moment: await hub.make_key(moment) for moment in MOMENTS}
    assert {answer.status_code for answer in answers.values()} == {201}
    replayed = {moment: answer.headers.get("idempotency-replayed") for moment, answer in answers.items()}
    assert replayed == dict.fromkeys(MOMENTS) | {"when both are committed": "true"}
    assert {name: answer.content for name, answer in again.items()} == {
        name: answer.content for name, answer in answers.items()
    }
    once = Counter(list(MOMENTS))
    assert await made(config) == (once, once)


@pytest.mark.parametrize("answers", KILLED_AFTER)
async def test_killed_at_any_moment_under_load_nothing_is_done_twice(config, answers):
    _, token = await prepared(config.database)
    given, asked, enough = {}, [], asyncio.Event()

    async def ask(hub, number):
        for each in range(1000):
            asked.append(name := f"{number}.{each}")
            try:
                answer = await hub.make_key(name)
            except httpx.TransportError:
                return
            given[name] = answer.content
            if len(given) >= answers:
                enough.set()

    async with running(config, token) as hub:
        asking = [asyncio.create_task(ask(hub, number)) for number in range(ASKERS)]
        async with asyncio.timeout(20):
            await enough.wait()
        hub.process.kill()
        await asyncio.gather(*asking)
    async with running(config, token) as hub:
        after = {name: await hub.make_key(name) for name in asked}
    assert {answer.status_code for answer in after.values()} == {201}
    assert {name: after[name].content for name in given} == given
    assert await made(config) == (Counter(asked), Counter(asked))
