"""Two Hub processes on one PostgreSQL: an act is done once whoever is asked, and what one ends both end."""

import asyncio
import secrets
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from hub.storage.repositories import Storage
from tests.integration.hub.api.admin.processes import data_dir_like, prepared, running

ROUNDS = 12
OBEYS_WITHIN_S = 10.0
"""Docs say about a second; on a busy machine that is more, and never more than this."""


@pytest.fixture
def settings(postgres):
    name = f"hub_{secrets.token_hex(6)}"
    yield {"database_url": postgres.create(name)}
    postgres.drop(name)


@pytest.fixture
async def two(config, tmp_path):
    """Two Hubs with the same key and database, each with a folder of its own."""
    _, token = await prepared(config.database)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(running(config, token))
        second = data_dir_like(config, tmp_path / "second")
        yield one, await stack.enter_async_context(running(second, token))


async def test_asked_at_once_with_one_idempotency_key_one_of_them_acts(two, config):
    """The other says that it is being answered, or gives the same answer; afterwards both give it."""
    for number in range(ROUNDS):
        answers = await asyncio.gather(*(hub.make_key(f"k{number}") for hub in two for _ in range(2)))
        assert {answer.status_code for answer in answers} <= {201, 409}
        given = {answer.content for answer in answers if answer.status_code == 201}
        assert len(given) == 1
        codes = {answer.json()["error"]["code"] for answer in answers if answer.status_code == 409}
        assert codes <= {"idempotency_key_in_use"}
        for hub in two:
            again = await hub.make_key(f"k{number}")
            assert (again.status_code, {again.content}) == (201, given)
            assert again.headers["idempotency-replayed"] == "true"
    async with await Storage.open(config.database) as storage:
        names = Counter(key.name for key in await storage.keys.list())
        events = await storage.audit.page(actions=["key.created"], limit=1000)
    assert names == Counter(f"k{number}" for number in range(ROUNDS))
    assert len(events) == ROUNDS


async def test_different_acts_on_both_at_once_are_all_done(two, config):
    """None is lost to a lock of the other."""
    named = [f"{place}.{number}" for place in range(2) for number in range(ROUNDS)]
    answers = await asyncio.gather(*(two[int(name[0])].make_key(name) for name in named))
    assert {answer.status_code for answer in answers} == {201}
    async with await Storage.open(config.database) as storage:
        assert Counter(key.name for key in await storage.keys.list()) == Counter(named)


async def test_a_key_that_one_revokes_the_other_refuses_soon(two):
    """Both hold a copy of it. The one that revokes refuses at once, the other when it has looked."""
    made = (await two[0].make_key("app")).json()
    key = {"authorization": f"Bearer {made['secret']}"}
    for hub in two:
        assert (await hub.http.get("/v1/models", headers=key)).status_code == 200
    revoked = await two[0].http.post(f"/admin/v1/keys/{made['key']['id']}/revoke")
    assert revoked.status_code == 200
    assert (await two[0].http.get("/v1/models", headers=key)).status_code == 401
    async with asyncio.timeout(OBEYS_WITHIN_S):
        while (await two[1].http.get("/v1/models", headers=key)).status_code != 401:
            await asyncio.sleep(0.02)
    assert (await two[1].http.get("/v1/models", headers=key)).status_code == 401, "and stays so"


async def test_a_key_that_one_made_the_other_takes_at_once(two):
    """What is not known is asked of the database."""
    made = (await two[0].make_key("app")).json()
    key = {"authorization": f"Bearer {made['secret']}"}
    assert (await two[1].http.get("/v1/models", headers=key)).status_code == 200
