"""A right that ends after a request was let in and before it writes: every administrative route refuses.

What is taken away, and when, is the test's; all else is a running Hub, asked over HTTP.
"""

from contextlib import asynccontextmanager

import pytest

from hub.acting import HUB, acting_as, current_actor
from hub.storage.engine import Database
from hub.storage.records import Role
from tests.integration.hub.api.access.rules import HOME, OPERATORS, Caller, Row
from tests.integration.hub.api.access.table import ROWS

OWNER, OPERATOR = (Role.OWNER, HOME), (Role.OPERATOR, OPERATORS)
BY = {
    "tokens that change": Caller("token", *OWNER),
    "operators' tokens": Caller("token", *OPERATOR),
    "sessions that change": Caller("session", *OWNER),
    "operators' sessions": Caller("session", *OPERATOR),
}
"""Who asks for what a row lets only some do."""
JOBS = {"/admin/v1/nodes/{node_id}/jobs", "/nodes/{node_id}/models"}
"""They ask something of a node, in no transaction; what was asked is in the log whatever became of it."""
ACTS = [row for row in ROWS if row.who in BY and row.method != "GET" and row.path not in JOBS]


async def revoked(storage, person):
    await storage.admin_tokens.revoke(person.id, now=storage.database.clock())


async def signed_out(storage, person):
    await storage.members.sign_out(person.id, by=None)


async def another_role(storage, person):
    await storage.members.change_role(person.id, Role.MEMBER, by=None)


async def removed(storage, person):
    await storage.members.remove(person.id, by=None)


@pytest.fixture
def before_it_writes(world, monkeypatch):
    """Has something done just before somebody's first transaction that writes begins."""
    storage, waiting = world.bench.hub.storage, {}

    @asynccontextmanager
    async def begin(*, durable=True):
        if (happens := waiting.pop(current_actor().id, None)) is not None:
            with acting_as(HUB):
                await happens
        async with Database.begin(storage.database, durable=durable) as connection:
            yield connection

    monkeypatch.setattr(storage.database, "begin", begin)
    return waiting


async def done_by(world, person):
    """What the audit log says that somebody did."""
    return [event.action async for event in world.bench.hub.storage.audit.chain() if event.actor == person.id]


async def ask(world, row: Row, before_it_writes, taken=None):
    """Somebody new asks for something new."""
    world.things = await world.lasting()
    person = await world.person(BY[row.who])
    needed = await world.needed(row, person)
    if taken is not None:
        before_it_writes[person.id] = taken(world.bench.hub.storage, person)
    answer = await world.send(row, person, needed)
    assert not before_it_writes, f"{row.method} {row.path} did not write: {answer.text[:300]}"
    return answer, await done_by(world, person)


def asked_by(kind):
    return [row for row in ACTS if BY[row.who].kind == kind]


@pytest.mark.parametrize("kind", ["token", "session"])
async def test_each_of_these_requests_does_something_that_is_told(world, before_it_writes, kind):
    """Else what follows would prove nothing."""
    for row in asked_by(kind):
        answer, done = await ask(world, row, before_it_writes)
        assert answer.status_code in row.good, (row, answer.text)
        assert len(done) == 1, (row, done)


@pytest.mark.parametrize(
    ("kind", "taken", "refusals"),
    [
        ("token", revoked, {401}),
        ("session", signed_out, {303}),
        ("session", removed, {303, 404}),
        ("session", another_role, {403}),
    ],
)
async def test_without_the_right_none_of_it_is_done(world, before_it_writes, kind, taken, refusals):
    for row in asked_by(kind):
        answer, done = await ask(world, row, before_it_writes, taken)
        assert answer.status_code in refusals, (row, answer.status_code, answer.text)
        if answer.status_code == 303:
            assert answer.headers["location"].startswith("/login"), row
        assert done == [], row
