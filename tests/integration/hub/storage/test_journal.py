"""Refusals reach the audit log, each counted once, whatever happens to the process in between."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from hub.acting import Actor, acting_as
from hub.errors import SpoolUnavailable, StorageUnavailable
from hub.journal import Journal
from hub.keys import issue_key
from hub.storage.records import Role
from hub.storage.repositories import Storage

NOW = 1_700_000_000.0


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "audit"


@pytest.fixture
def journal(storage, directory, clock):
    return Journal(storage, directory, clock)


@pytest.fixture
async def key(storage, organisation):
    return (await issue_key(storage, organisation.id, name="app", now=NOW)).key


async def noted(storage, action):
    return [event async for event in storage.audit.chain() if event.action == action]


async def test_a_refusal_says_which_gates_and_nothing_of_the_request(storage, journal, key, clock):
    async with journal:
        clock.now = NOW + 0.5
        journal.refused("req_1", key, "tiny", "no_available_node", {"offline": 2, "region": 1})
    (event,) = await noted(storage, "request.refused")
    assert (event.actor, event.subject, event.organisation_id) == (key.id, key.id, key.organisation_id)
    assert event.time_ms == round((NOW + 0.5) * 1000)
    assert event.facts() == {
        "model": "tiny",
        "code": "no_available_node",
        "gates": {"offline": 2, "region": 1},
        "reference": "req_1",
    }
    assert event.batch is not None


async def test_a_flood_becomes_one_event_with_its_count(storage, journal, key):
    async with journal:
        for number in range(500):
            journal.refused(f"req_{number}", key, "tiny", "model_not_allowed", {})
    (event,) = await noted(storage, "request.refused")
    facts = event.facts()
    assert (facts["count"], facts["reference"], facts["last_reference"]) == (500, "req_0", "req_499")


async def test_a_refused_sign_in_names_the_account_only_where_there_is_one(storage, journal, people):
    owner = await people.get(Role.OWNER)
    async with journal:
        journal.sign_in_refused(owner, "192.0.2.1")
        journal.sign_in_refused(None, "192.0.2.1")
    known, unknown = await noted(storage, "account.sign_in_refused")
    assert (known.subject, known.organisation_id) == (owner.id, owner.organisation_id)
    assert (unknown.subject, unknown.organisation_id) == ("", None)
    address = known.facts()["address"]
    assert unknown.facts() == {"address": address}
    assert address.startswith("psd_")
    assert await storage.audit.names([address]) == {address: "192.0.2.1"}


async def test_whoever_acts_is_who_noted_it(storage, journal, organisation):
    with acting_as(Actor("acct_1", organisation.id, address="192.0.2.1")):
        async with journal:
            journal.note("node.commanded", "node_1", command="load", model="tiny")
    (event,) = await noted(storage, "node.commanded")
    assert (event.actor, event.subject, event.organisation_id) == ("acct_1", "node_1", organisation.id)
    assert {"command": "load", "model": "tiny"}.items() <= event.facts().items()


async def test_a_file_that_was_stored_but_not_deleted_counts_once(storage, journal, directory, key):
    async with journal:
        journal.refused("req_1", key, "tiny", "model_not_allowed", {})
        (path,) = directory.glob("*.jsonl")
        content = path.read_bytes()
        await journal.flush()
        path.write_bytes(content)
        await journal.flush()
    assert len(await noted(storage, "request.refused")) == 1
    assert list(directory.iterdir()) == []


async def test_a_disk_that_is_full_refuses_all_the_same_and_is_said(journal, key, monkeypatch, caplog):
    async with journal:
        with monkeypatch.context() as full:
            full.setattr(os, "write", lambda *_: 0)
            journal.refused("req_1", key, "tiny", "model_not_allowed", {})
            with pytest.raises(SpoolUnavailable):
                journal.note("node.commanded", "node_1", command="load")
    assert [record.event for record in caplog.records if record.name == "hub.journal"] == ["audit.lost"]


FLOOD = textwrap.dedent("""
    import asyncio, sys, time
    from pathlib import Path
    from hub.acting import Actor
    from hub.journal import Journal
    from hub.storage.repositories import Storage

    async def main(url, directory):
        key = Actor("key_1", "org_1")
        place = Path(directory)
        async with await Storage.open(url) as storage, Journal(storage, place, time.time) as journal:
            for number in range(10**9):
                journal.note("request.refused", "key_1", by=key, model=number % 5)
                sys.stdout.write(f"{number}\\n")
                sys.stdout.flush()
                if number % 100 == 99:
                    await journal.flush()

    asyncio.run(main(*sys.argv[1:]))
""")


@pytest.mark.parametrize("refusals", [1, 350])
async def test_sigkill_in_a_flood_loses_no_refusal_and_counts_none_twice(
    refusals, storage, database_url, directory, clock
):
    child = subprocess.Popen(
        [sys.executable, "-c", FLOOD, database_url, str(directory)], stdout=subprocess.PIPE, text=True
    )

    def watch():
        seen = [child.stdout.readline() for _ in range(refusals)]
        os.kill(child.pid, signal.SIGKILL)
        seen += [line for line in child.stdout if line.endswith("\n")]
        child.wait()
        child.stdout.close()
        return len(seen)

    refused = await asyncio.to_thread(watch)
    async with Journal(storage, directory, clock):
        pass
    counted = sum(event.facts().get("count", 1) for event in await noted(storage, "request.refused"))
    assert refused <= counted <= refused + 1, "at most the one whose write returned and was not said"
    assert list(directory.iterdir()) == []


async def test_while_storage_is_away_refusals_wait(storage, journal, key, monkeypatch):
    async def away(*_):
        raise StorageUnavailable("disk I/O error")

    async with journal:
        with monkeypatch.context() as broken:
            broken.setattr(storage.audit, "add", away)
            journal.refused("req_1", key, "tiny", "model_not_allowed", {})
            with pytest.raises(StorageUnavailable):
                await journal.flush()
        await journal.flush()
        assert len(await noted(storage, "request.refused")) == 1


async def test_two_hubs_share_the_directory(storage, directory, clock, key, database_url):
    async with await Storage.open(database_url) as other:
        async with Journal(storage, directory, clock) as one, Journal(other, directory, clock) as two:
            one.refused("req_1", key, "a", "model_not_allowed", {})
            two.refused("req_2", key, "b", "model_not_allowed", {})
            await asyncio.gather(one.flush(), two.flush())
        assert {event.facts()["model"] for event in await noted(storage, "request.refused")} == {"a", "b"}
