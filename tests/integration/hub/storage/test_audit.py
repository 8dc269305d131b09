"""One chain, however many processes write it; what is done to it is found; seals and pruning."""

import asyncio
import subprocess
import sys
import textwrap

import pytest
from sqlalchemy import text

from hub.acting import Actor
from hub.audit import Problem
from hub.errors import AlreadyExists, NotFound, StorageUnavailable
from hub.keys import issue_key
from hub.sealing import EVERY_EVENTS, EVERY_S, Sealer
from hub.storage.chain import Act
from hub.storage.records import Role
from hub.storage.repositories import Storage
from tests.integration.hub.storage.audit_log import KEY, NOW, check, log_of, since


@pytest.fixture
def sealer(clock):
    return Sealer(KEY, "hub_1", clock)


# --- together or not at all


async def test_an_act_that_cannot_be_told_does_not_happen(storage, organisation, monkeypatch):
    async def broken(*_args, **_more):
        raise OSError("no")

    head = await storage.audit.head()
    monkeypatch.setattr("hub.storage.engine.append", broken)
    with pytest.raises(StorageUnavailable, match="OSError"):
        await issue_key(storage, organisation.id, name="app", now=NOW)
    with pytest.raises(StorageUnavailable, match="OSError"):
        await storage.regions.add("us", None, "United States")
    assert await storage.keys.list() == []
    assert "us" not in await storage.regions.tree()
    assert await storage.audit.head() == head


async def test_an_act_that_fails_is_not_told(storage, organisation):
    head = await storage.audit.head()
    with pytest.raises(AlreadyExists):
        await storage.organisations.create(organisation.name, now=NOW)
    with pytest.raises(NotFound):
        await storage.keys.revoke("key_none", now=NOW)
    with pytest.raises(NotFound):
        await storage.nodes.revoke("node_none", now=NOW)
    await storage.join_tokens.revoke("jt_none", now=NOW)
    await storage.sessions.delete("none")
    await storage.accounts.change_password("acct_none", "-")
    assert await storage.audit.head() == head


# --- many at once

WRITER = textwrap.dedent("""
    import asyncio, sys
    from hub.acting import Actor, act_as
    from hub.keys import change_key, issue_key, rotate_key
    from hub.storage.repositories import Storage

    async def main(url, organisation, name):
        act_as(Actor(name, organisation, address=name))
        async with await Storage.open(url) as storage:
            for number in range(25):
                key = (await issue_key(storage, organisation, name=f"{name} {number}", now=1.0)).key
                await storage.keys.revoke(key.id, now=2.0)

    asyncio.run(main(*sys.argv[1:]))
""")


async def test_many_processes_write_one_chain(storage, organisation, database_url):
    start = (await storage.audit.head())[0]
    names = [f"writer_{number}" for number in range(4)]
    children = [
        subprocess.Popen([sys.executable, "-c", WRITER, database_url, organisation.id, name])
        for name in names
    ]
    tasks = [issue_key(storage, organisation.id, name=str(number), now=NOW) for number in range(20)]
    await asyncio.gather(*tasks)
    assert [await asyncio.to_thread(child.wait) for child in children] == [0] * 4
    events = await since(storage, start)
    assert [event.sequence for event in events] == list(range(start + 1, start + 1 + 4 * 50 + 20))
    assert await check(storage) == []
    for name in names:
        mine = [event for event in events if event.actor == name]
        assert [event.action for event in mine] == ["key.created", "key.revoked"] * 25
        assert len({event.facts()["address"] for event in mine}) == 1, "one pseudonym for one address"


# --- what was meddled with in the database itself


@pytest.fixture
async def sealed(storage, organisation, sealer):
    for number in range(5):
        await issue_key(storage, organisation.id, name=str(number), now=NOW)
    return await sealer.seal(storage.audit)


async def sql(storage, statement):
    async with storage._engine.begin() as connection:
        await connection.execute(text(statement))


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit_events SET actor = 'hub' || actor WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET time_ms = time_ms + 1 WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET details = details || ' ' WHERE sequence = 3", Problem.EDITED),
        ("UPDATE audit_events SET organisation_id = NULL WHERE sequence > 5", Problem.EDITED),
        ("UPDATE audit_events SET hash = previous_hash WHERE sequence = 4", Problem.EDITED),
        ("DELETE FROM audit_events WHERE sequence = 3", Problem.MISSING),
        ("DELETE FROM audit_events WHERE sequence < 3", Problem.MISSING),
        ("DELETE FROM audit_events WHERE sequence > 5", Problem.CUT),
        ("UPDATE audit_events SET sequence = 99 WHERE sequence = 3", Problem.MISSING),
        ("UPDATE audit_head SET sequence = 3", Problem.HEAD),
        ("UPDATE audit_checkpoints SET token = token || 'x'", Problem.CHECKPOINT),
    ],
)
async def test_what_is_done_to_the_database_is_found(storage, sealed, statement, problem):
    assert await check(storage) == []
    await sql(storage, statement)
    assert problem in {finding.problem for finding in await check(storage)}


async def test_an_end_that_was_cut_off_cleanly_shows_against_a_checkpoint_kept_elsewhere(storage, sealed):
    async with storage._engine.begin() as connection:
        await connection.execute(text("DELETE FROM audit_events WHERE sequence > 5"))
        await connection.execute(text("DELETE FROM audit_checkpoints"))
        await connection.execute(
            text(
                "UPDATE audit_head SET sequence = 5, "
                "hash = (SELECT hash FROM audit_events WHERE sequence = 5)"
            )
        )
    assert await check(storage) == []
    (finding,) = await check(storage, sealed)
    assert finding.problem is Problem.CUT


# --- seals and pruning


async def test_a_checkpoint_is_due_after_so_many_events_or_so_much_time(storage, clock, sealer, caplog):
    caplog.set_level("INFO")
    await sealer.seal_if_due(storage.audit)
    first = await storage.audit.last_checkpoint()
    assert first[0] == (await storage.audit.head())[0]
    await storage.regions.add("us", None, "US")
    await sealer.seal_if_due(storage.audit)
    assert await storage.audit.last_checkpoint() == first, "not yet"
    clock.now += EVERY_S
    await sealer.seal_if_due(storage.audit)
    assert (await storage.audit.last_checkpoint())[0] == first[0] + 1
    clock.now += EVERY_S
    await sealer.seal_if_due(storage.audit)
    assert (await storage.audit.last_checkpoint())[0] == first[0] + 1, "nothing has happened"
    acts = [Act(action="a", actor=Actor("hub"), subject="", at=NOW)] * EVERY_EVENTS
    await storage.audit.add("batch", acts)
    await sealer.seal_if_due(storage.audit)
    tokens = await storage.audit.checkpoints()
    assert len(tokens) == 3
    logged = [record for record in caplog.records if getattr(record, "event", "") == "audit.checkpoint"]
    assert [record.token for record in logged] == tokens, "a collector of logs has every one"
    assert await check(storage) == []


async def test_pruning_leaves_a_root_that_the_rest_is_verified_from(database_url, clock, sealer):
    async with await Storage.open(database_url, clock) as storage:
        await storage.migrate()
        for number in range(6):
            clock.now = NOW + number
            await storage.regions.add(f"r{number}", None, "R")
        await sealer.seal(storage.audit)
        elsewhere = await storage.audit.checkpoints()
        await sealer.prune(storage.audit, before=NOW + 3)
        left = await log_of(storage)
        assert [event.subject for event in left] == ["r3", "r4", "r5", "4"]
        assert (left[-1].action, left[-1].facts()["events"]) == ("audit.pruned", 4)
        assert await check(storage, *elsewhere) == []
        await sql(storage, f"DELETE FROM audit_events WHERE sequence = {left[0].sequence}")
        assert Problem.MISSING in {finding.problem for finding in await check(storage)}


async def test_pruning_everything_leaves_the_event_that_says_so(database_url, clock, sealer):
    async with await Storage.open(database_url, clock) as storage:
        await storage.migrate()
        await sealer.prune(storage.audit, before=NOW + 1)
        (event,) = await log_of(storage)
        assert (event.sequence, event.action) == (2, "audit.pruned")
        assert await check(storage) == []
        await sealer.prune(storage.audit, before=NOW - 1)
        assert await log_of(storage) == [event], "what is not old enough stays"


# --- what a spool gives


async def test_a_batch_counts_once(storage):
    acts = [Act(action="request.refused", actor=Actor("key_1", "org_1"), subject="key_1", at=NOW)] * 2
    start = (await storage.audit.head())[0]
    for _ in range(3):
        await storage.audit.add("run-1.0", acts)
    await storage.audit.add("run-2.0", acts)
    assert [event.batch for event in await since(storage, start)] == ["run-1.0"] * 2 + ["run-2.0"] * 2
    assert await check(storage) == []


async def test_pages_are_by_organisation_action_and_place(storage, organisation):
    other = await storage.organisations.create("Other", now=NOW)
    for number in range(5):
        key = (await issue_key(storage, organisation.id, name=str(number), now=NOW)).key
        await issue_key(storage, other.id, name=str(number), now=NOW)
        await storage.keys.revoke(key.id, now=NOW)
    page = await storage.audit.page(organisation.id, actions=["key.revoked"], limit=3)
    assert [event.action for event in page] == ["key.revoked"] * 3
    rest = await storage.audit.page(organisation.id, actions=["key.revoked"], before=page[-1].sequence)
    assert len(rest) == 2
    assert {event.organisation_id for event in page + rest} == {organisation.id}
    assert {event.organisation_id for event in await storage.audit.page()} == {
        organisation.id,
        other.id,
        None,
    }


async def test_names_of_another_organisation_are_not_told(storage, organisation, people, make_node):
    owner, node = await people.get(Role.OWNER), await make_node(name="attic")
    ids = [owner.id, node.id, organisation.id]
    assert len(await storage.audit.names(ids)) == 3
    assert await storage.audit.names(ids, organisation.id) == {
        owner.id: owner.email,
        node.id: "attic",
        organisation.id: organisation.name,
    }
    assert await storage.audit.names(ids, "org_other") == {}
