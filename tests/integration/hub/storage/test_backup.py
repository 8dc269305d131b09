"""Backups on real databases: whole, of one moment, and back on either kind, or not at all."""

import asyncio
import os
import secrets
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from hub.acting import Actor, acting_as
from hub.audit import ChainCheck
from hub.errors import BackupExists, BackupInvalid, HubHasData, StorageUnavailable
from hub.keys import issue_key
from hub.storage import archive, backup, migrate
from hub.storage.chain import HEAD
from hub.storage.repositories import Storage
from hub.storage.tables import metadata, organisations, usage_records
from tests.integration.hub.storage.filling import ROWS, everything, fill_every_table

NOW = 1_700_000_000.0


def silent(table, done, total):
    assert 0 <= done <= total


@pytest.fixture(params=["sqlite", "postgresql"])
def other_url(request, tmp_path):
    """An empty database of each kind, to restore into."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/other.db"
        return
    postgres = request.getfixturevalue("postgres")
    name = f"hub_{secrets.token_hex(6)}"
    yield postgres.create(name)
    postgres.drop(name)


@pytest.fixture
async def filled(database_url):
    """A database with rows in every table."""
    async with await Storage.open(database_url) as storage:
        await storage.migrate()
        async with storage.database.note() as connection:
            await connection.run_sync(fill_every_table)
        yield storage


@dataclass
class Backups:
    """Writes backups into a folder."""

    folder: Path

    async def of(self, storage, name="hub.porten", **changes) -> Path:
        values = {"program": "0.0", "now": NOW, "key": None, "told": silent} | changes
        await backup.dump(storage.database, self.folder / name, **values)
        return self.folder / name


@pytest.fixture
def backups(tmp_path) -> Backups:
    return Backups(tmp_path)


async def all_of(storage):
    """All that a restore brings back, without what it tells of itself: the last event, and so the head."""
    async with storage.database.read() as connection:
        found = await everything(connection)
    found["audit_events"] = [each for each in found["audit_events"] if each["action"] != "hub.restored"]
    found["audit_head"] = [each for each in found["audit_head"] if each["id"] != HEAD]
    return found


async def restored(url, path, **changes):
    async with await Storage.open(url) as storage:
        await backup.restore(storage.database, path, **{"overwrite": False, "told": silent} | changes)
        return await all_of(storage), await storage.settings.revision()


async def test_what_is_backed_up_comes_back_on_either_kind(filled, backups, other_url):
    path = await backups.of(filled)
    found, revision = await restored(other_url, path)
    assert found == await all_of(filled)
    assert found.keys() == metadata.tables.keys()
    assert all(len(rows) >= ROWS for rows in found.values())
    assert revision > await filled.settings.revision()
    async with await Storage.open(other_url) as other:
        assert await migrate.revision_of(other.database) == migrate.latest_revision()


async def test_the_same_contents_are_the_same_file_whatever_keeps_them(filled, backups, other_url):
    path = await backups.of(filled)
    await restored(other_url, path)
    async with await Storage.open(other_url) as other:
        again = archive.verify(await backups.of(other, "again.porten"))
    before = archive.verify(path)
    apart = {name for name in before.sums if before.sums[name] != again.sums[name]}
    assert apart == {"settings", "audit_events", "audit_head"}, "the revision counter, and what tells of it"


async def test_a_backup_says_what_it_is_and_is_its_owners_alone(filled, backups):
    path = await backups.of(filled, program="1.2.3")
    head = archive.verify(path).head
    assert (head.program, head.schema, head.made_at) == ("1.2.3", migrate.latest_revision(), NOW)
    assert head.key is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in path.parent.glob("*.part")] == []


async def test_a_key_is_in_it_only_where_it_was_asked_for_and_is_not_shown(filled, backups):
    head = archive.verify(await backups.of(filled, key="-----SECRET-----")).head
    assert head.key == "-----SECRET-----"
    assert "SECRET" not in repr(head)


async def test_a_file_that_is_there_is_left_alone(filled, backups, tmp_path):
    (tmp_path / "hub.porten").write_text("mine")
    with pytest.raises(BackupExists):
        await backups.of(filled)
    assert (tmp_path / "hub.porten").read_text() == "mine"


async def test_a_backup_is_of_one_moment_while_others_write(filled, backups):
    """Each change adds an organisation and a record: a backup has as many of the one as of the other."""
    stop = asyncio.Event()

    async def write():
        number = 0
        while not stop.is_set():
            number += 1
            async with filled.database.change() as connection:
                name = {"id": f"org_{number:08d}", "name": f"n{number:08d}", "created_at": NOW}
                await connection.execute(insert(organisations), [name])
                await connection.execute(insert(usage_records), [usage(f"req_{number:08d}")])
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    try:
        sums = [archive.verify(await backups.of(filled, f"{number}.porten")).sums for number in range(12)]
    finally:
        stop.set()
        await writing
    pairs = [(each["organisations"][0], each["usage_records"][0]) for each in sums]
    assert all(left == right for left, right in pairs)
    assert pairs[-1] > pairs[0], "somebody wrote meanwhile"


def usage(request_id):
    return {
        "request_id": request_id,
        "key_id": "key_1",
        "organisation_id": "org_1",
        "node_id": "node_1",
        "region": None,
        "model": "tiny",
        "prompt_tokens": 1,
        "cached_tokens": 0,
        "completion_tokens": 1,
        "ttft_ms": None,
        "duration_ms": 1.0,
        "outcome": "ok",
        "created_at": NOW,
    }


async def test_a_hub_with_data_is_overwritten_only_when_that_is_said(filled, backups, other_url):
    path = await backups.of(filled)
    async with await Storage.open(other_url) as other:
        await other.migrate()
        await other.organisations.create("Theirs", now=NOW)
        before = await all_of(other)
        revision = await other.settings.revision()
    with pytest.raises(HubHasData, match="--overwrite"):
        await restored(other_url, path)
    async with await Storage.open(other_url) as other:
        assert await all_of(other) == before
    found, after = await restored(other_url, path, overwrite=True)
    assert found == await all_of(filled)
    assert after > max(revision, await filled.settings.revision())


async def check_log(storage):
    """The log's events, of which nothing is found to be wrong."""
    check, events = ChainCheck((), await storage.audit.head()), [each async for each in storage.audit.chain()]
    for event in events:
        check.take(event)
    assert check.finish((await storage.audit.head())[0]) == []
    return events


async def test_the_audit_log_comes_back_whole_and_goes_on_with_the_restore(database_url, backups, other_url):
    with acting_as(Actor("cli", user="root")):
        async with await Storage.open(database_url) as storage:
            await storage.migrate()
            organisation = await storage.organisations.create("Ours", now=NOW)
            await issue_key(storage, organisation.id, name="app", now=NOW)
            hub_id, written = await storage.settings.hub_id(), await check_log(storage)
            path = await backups.of(storage, program="1.2.3")
    async with await Storage.open(other_url) as other:
        await other.migrate()
        await other.organisations.create("Theirs", now=NOW)
        sequence, digest = await other.audit.head()
    with acting_as(Actor("cli", user="root")):
        await restored(other_url, path, overwrite=True)
    async with await Storage.open(other_url) as other:
        *before, last = await check_log(other)
        assert before == written
        assert (last.action, last.actor, last.subject) == ("hub.restored", "cli", hub_id)
        told = last.facts()
        assert await other.audit.names([told.pop("user")]) == {written[0].facts()["user"]: "root"}
        assert told == {
            "made_at": NOW,
            "program": "1.2.3",
            "schema": migrate.latest_revision(),
            "replaced_events": sequence,
            "replaced_hash": digest,
        }
        await other.organisations.create("Later", now=NOW)
        assert len(await check_log(other)) == len(written) + 2


async def test_a_database_of_somebody_elses_is_left_alone(filled, backups, other_url):
    path = await backups.of(filled)
    async with await Storage.open(other_url) as other, other.database.note() as connection:
        await connection.execute(text("CREATE TABLE theirs (id INTEGER)"))
    with pytest.raises(StorageUnavailable, match="not a Hub's"):
        await restored(other_url, path, overwrite=True)
    async with await Storage.open(other_url) as other, other.database.read() as connection:
        await connection.execute(text("SELECT id FROM theirs"))


async def test_an_older_backup_comes_back_in_todays_schema(database_url, backups, other_url):
    async with await Storage.open(database_url) as old:
        await migrate.upgrade(old.database, "0001")
        async with old.database.note() as connection:
            await connection.execute(text("INSERT INTO organisations VALUES ('org_1', 'Old', 1.5)"))
            await connection.execute(text("INSERT INTO settings VALUES ('hub_id', 'hub_old')"))
        path = await backups.of(old)
    assert archive.verify(path).head.schema == "0001"
    await restored(other_url, path)
    async with await Storage.open(other_url) as other:
        assert (await other.organisations.by_name("Old")).created_at == 1.5
        assert await other.settings.hub_id() == "hub_old"
        assert await migrate.revision_of(other.database) == migrate.latest_revision()


async def test_a_backup_of_a_newer_hub_is_refused_and_changes_nothing(
    filled, backups, database_url, other_url
):
    async with filled.database.note() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    path = await backups.of(filled)
    with pytest.raises(StorageUnavailable, match="newer"):
        await restored(other_url, path)
    async with await Storage.open(other_url) as other:
        assert await migrate.revision_of(other.database) is None


async def test_an_empty_database_makes_no_backup(database_url, backups, tmp_path):
    async with await Storage.open(database_url) as empty:
        with pytest.raises(StorageUnavailable, match="init"):
            await backups.of(empty)
    assert not (tmp_path / "hub.porten").exists()


@pytest.fixture
async def sqlite_backup(tmp_path, backups) -> Path:
    async with await Storage.open(f"sqlite:///{tmp_path}/source.db") as storage:
        await storage.migrate()
        async with storage.database.note() as connection:
            await connection.run_sync(fill_every_table)
        return await backups.of(storage)


async def test_whatever_byte_is_lost_or_changed_it_is_found(sqlite_backup, tmp_path):
    whole = sqlite_backup.read_bytes()
    damaged = tmp_path / "damaged.porten"
    for place in range(10, len(whole), max(1, len(whole) // 60)):  # from 10 on: before is gzip's header
        for content in (whole[:place], whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :]):
            damaged.write_bytes(content)
            with pytest.raises(BackupInvalid):
                archive.verify(damaged)


@pytest.mark.parametrize("content", [b"", b"no gzip at all", b"\x1f\x8b", None])
async def test_what_is_no_backup_is_said_to_be_none(tmp_path, content):
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BackupInvalid):
        archive.verify(path)


async def test_rows_that_were_tampered_with_do_not_pass_for_the_backups(sqlite_backup, tmp_path):
    import gzip

    lines = gzip.decompress(sqlite_backup.read_bytes()).splitlines(keepends=True)
    row = next(number for number, line in enumerate(lines) if line.startswith(b"["))
    for changed in (lines[:row] + lines[row + 1 :], [*lines[: row + 1], lines[row], *lines[row + 1 :]]):
        (tmp_path / "t").write_bytes(gzip.compress(b"".join(changed)))
        with pytest.raises(BackupInvalid):
            archive.verify(tmp_path / "t")


async def test_numbering_goes_on_after_what_came_back(postgres, tmp_path):
    url = postgres.create(name := f"hub_{secrets.token_hex(6)}")
    async with await Storage.open(url) as storage, storage.database.note() as connection:
        await connection.execute(text("CREATE TABLE numbered (id SERIAL PRIMARY KEY, note TEXT)"))
        await connection.execute(text("INSERT INTO numbered VALUES (41, 'restored')"))
        await backup._continue_numbering(connection, await backup._tables(connection))
        await connection.execute(text("INSERT INTO numbered (note) VALUES ('new')"))
        assert await connection.scalar(text("SELECT max(id) FROM numbered")) == 42
    postgres.drop(name)


# --- killed

RUN = """
import asyncio, sys
from pathlib import Path
from hub.storage import backup
from hub.storage.repositories import Storage

def told(table, done, total):
    sys.stdout.write(f"{table} {done}\\n")
    sys.stdout.flush()

async def main(what, url, path):
    async with await Storage.open(url) as storage:
        if what == "restore":
            await backup.restore(storage.database, Path(path), overwrite=True, told=told)
        else:
            await backup.dump(storage.database, Path(path), program="0", now=0.0, key=None, told=told)

asyncio.run(main(*sys.argv[1:]))
"""
MANY = 3_000
KILLS = 6


def child(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def killed_after(process, lines, seconds):
    """Kill it a while after it has said so many lines; False where it was done before."""
    for _ in range(lines):
        process.stdout.readline()
    time.sleep(seconds)
    os.kill(process.pid, signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


@pytest.fixture
async def large(tmp_path, backups) -> Path:
    """A backup that takes a while to come back."""
    async with await Storage.open(f"sqlite:///{tmp_path}/large.db") as storage:
        await storage.migrate()
        await storage.organisations.create("New", now=NOW)
        async with storage.database.note() as connection:
            await connection.execute(
                insert(usage_records), [usage(f"req_{number}") for number in range(MANY)]
            )
        return await backups.of(storage, "large.porten")


@pytest.mark.timeout(400)
async def test_a_restore_killed_at_any_moment_leaves_the_old_or_the_new(database_url, large, backups):
    async with await Storage.open(database_url) as storage:
        await storage.migrate()
        await storage.organisations.create("Old", now=NOW)
        small, old = await backups.of(storage, "small.porten"), await all_of(storage)
    process = child("restore", database_url, large)
    said = len(process.stdout.readlines())
    process.stdout.close()
    assert process.wait() == 0
    async with await Storage.open(database_url) as storage:
        new = await all_of(storage)
    assert len(new["usage_records"]) == MANY
    found = new
    for number in range(KILLS):
        if found == new:
            found, _ = await restored(database_url, small, overwrite=True)
            assert found == old
        # From before anything was said to after all rows are in: while they are looked at, or committed.
        lines = said * min(number, KILLS - 2) // (KILLS - 2)
        was_killed = killed_after(child("restore", database_url, large), lines, 0.05 * (number % 3))
        async with await Storage.open(database_url) as storage:
            found = await all_of(storage)
        assert found in ((old, new) if was_killed else (new,))


@pytest.mark.timeout(400)
async def test_a_backup_killed_at_any_moment_is_whole_or_not_there(database_url, large, tmp_path):
    await restored(database_url, large)
    for number in range(KILLS):
        path = tmp_path / "killed.porten"
        killed_after(child("backup", database_url, path), number, 0.01 * (number % 4))
        if path.exists():
            assert archive.verify(path).sums["usage_records"][0] == MANY
            path.unlink()
    async with await Storage.open(database_url) as storage:
        await backup.dump(
            storage.database, tmp_path / "killed.porten", program="0", now=0.0, key=None, told=silent
        )
