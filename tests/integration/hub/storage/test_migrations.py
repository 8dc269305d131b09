"""The schema: what the migrations build is what the tables say, however often, from wherever and by whomever.

`released/` holds, for each revision that a version of the program came out with, the schema as SQLite writes
it and rows as that version had them. A release adds its own.
"""

import asyncio
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from hub.audit import ChainCheck
from hub.errors import StorageUnavailable
from hub.storage import migrate
from hub.storage.records import Role
from hub.storage.repositories import Storage
from hub.storage.rollups import By
from hub.storage.tables import metadata

DROPPED = {"usage_records": {"day"}}
"""Columns that a migration took away, by their tables."""
RELEASED = Path(__file__).with_name("released")
REVISIONS = sorted(file.name.partition(".")[0] for file in RELEASED.glob("*.rows.sql"))


async def differences(storage):
    def compare(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with storage.database.read() as connection:
        return await connection.run_sync(compare)


async def rows_of_every_table(storage):
    """Each table's rows as sets of (column, value), whatever the schema is."""
    async with storage.database.read() as connection:
        tables = await connection.run_sync(_table_names)
        return {
            name: [
                dict(row) for row in (await connection.execute(text(f'SELECT * FROM "{name}"'))).mappings()
            ]
            for name in tables
        }


def _only(rows, columns):
    """Rows that can be compared, in those columns alone."""
    return {repr(sorted((name, row[name]) for name in columns)) for row in rows}


def _table_names(connection):
    return sorted(set(connection.dialect.get_table_names(connection)) - {"alembic_version"})


async def test_the_migrations_build_what_the_tables_say(storage):
    assert await differences(storage) == []


async def test_two_processes_may_migrate_at_once_and_again(database_url):
    async with await Storage.open(database_url) as one, await Storage.open(database_url) as other:
        await asyncio.gather(one.migrate(), other.migrate())
        await one.migrate()
        assert await other.settings.revision() == 0
        assert [event.action async for event in one.audit.chain()] == ["schema.migrated"], "told once"


async def test_a_database_of_a_newer_hub_is_left_alone(storage, database_url):
    async with storage._engine.begin() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    async with await Storage.open(database_url) as older:
        with pytest.raises(StorageUnavailable, match="newer"):
            await older.migrate()


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=lambda table: table.name)
def test_every_table_can_be_made_in_postgresql_too(table):
    dialect = postgresql.dialect()
    assert str(CreateTable(table).compile(dialect=dialect))
    assert all(str(CreateIndex(index).compile(dialect=dialect)) for index in table.indexes)


# --- from every released version


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_released_migration_never_changes(tmp_path, revision):
    async with await Storage.open(f"sqlite:///{tmp_path}/hub.db") as storage:
        await migrate.upgrade(storage.database, revision)
        query = (
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name <> 'alembic_version' ORDER BY name"
        )
        async with storage.database.read() as connection:
            made = [f"{sql};\n" for sql in await connection.scalars(text(query))]
    lines = [line.rstrip() for line in "".join(made).splitlines()]
    assert lines == (RELEASED / f"{revision}.schema.sql").read_text().splitlines()


async def released(database_url, revision):
    """A database as a Hub of that revision left it."""
    storage = await Storage.open(database_url)
    await migrate.upgrade(storage.database, revision)
    async with storage.database.note() as connection:
        for statement in (RELEASED / f"{revision}.rows.sql").read_text().splitlines():
            await connection.exec_driver_sql(_in_dialect(statement, database_url))
    return storage


def _in_dialect(statement, database_url):
    """Bytes are the one thing that both databases write in their own way."""
    if database_url.startswith("sqlite"):
        return statement
    return re.sub("X'([0-9A-F]+)'", r"'\\x\1'", statement)


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_released_hub_comes_up_to_date_and_loses_nothing(database_url, revision):
    async with await released(database_url, revision) as storage:
        before = await rows_of_every_table(storage)
        assert all(before.values()), "rows in every table"
        await storage.migrate()
        assert await differences(storage) == []
        after = await rows_of_every_table(storage)
        for name, rows in before.items():
            if name == "audit_head":
                continue
            columns = rows[0].keys() - DROPPED.get(name, set())
            lost = _only(rows, columns) - (kept := _only(after[name], columns))
            assert not lost, name
            assert len(kept) == len(rows) or name == "audit_events", name


@pytest.mark.parametrize("revision", REVISIONS)
async def test_the_audit_log_goes_on_as_one_chain_from_every_release(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        *_, last = events = [event async for event in storage.audit.chain()]
        check = ChainCheck((), await storage.audit.head())
        for event in events:
            check.take(event)
        assert check.finish((await storage.audit.head())[0]) == []
        if revision != migrate.latest_revision():
            assert (last.action, last.facts()) == ("schema.migrated", {"before": revision})
        assert {event.action for event in events} >= ({"key.created"} if revision >= "0003" else set())


@pytest.mark.parametrize("revision", REVISIONS)
async def test_sums_of_usage_are_those_of_the_records_from_every_release(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        sums = await storage.usage.sums("org_ours", since=0, until=2**31, by=[By.KEY, By.OUTCOME])
        assert [(each.group, each.requests, each.completion_tokens) for each in sums] == [
            (("key_app", "ok"), 1, 7),
            (("key_gone", "node_lost"), 1, 0),
        ]
        assert await storage.usage.tokens_by_holder(since=0, until=2**31) == {
            "org_ours": 19,
            "key_app": 19,
            "key_gone": 0,
        }


@pytest.mark.parametrize("revision", REVISIONS)
async def test_todays_program_reads_what_a_released_one_wrote(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        assert await storage.settings.hub_id() == "hub_ours"
        node = await storage.nodes.get("node_box")
        assert (node.generation, node.region, node.sharing.organisations) == (41, "eu-de", {"org_theirs"})
        key = await storage.keys.by_hash("a665a45920422f9d")
        assert (key.regions, key.models, key.policy.minimum_trust.label) == ({"eu"}, {"tiny"}, "verified")
        assert len(await storage.usage.list("org_ours")) == 2


@pytest.mark.parametrize("revision", [each for each in REVISIONS if each >= "0005"])
async def test_people_stay_who_they_were_and_sign_in_as_before(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        invitation = await storage.members.invitation("1679091c5a880faf", now=1700000011)
        assert (invitation.id, invitation.role, invitation.invited_by) == ("inv_ada", Role.MEMBER, "acct_op")
        step = await storage.second_steps.get("acct_op")
        assert (step.sealed_secret, step.last_step) == ("c2VhbGVkLXNlY3JldA", 56666667)
        assert await storage.second_steps.spend_code("acct_op", "8f14e45fceea167a")
        assert not await storage.second_steps.spend_code("acct_op", "8f14e45fceea167a"), "used up"
        known = await storage.identities.account("https://id.ours.example", "248289761001")
        assert (known.id, known.has_password) == ("acct_sso", False)
        (session,) = await storage.sessions.list("acct_op", now=1700000020)
        assert (session.address, session.browser) == ("192.0.2.8", "Firefox on Linux")


@pytest.mark.parametrize("revision", [each for each in REVISIONS if each >= "0006"])
async def test_admin_tokens_and_kept_answers_are_read_as_they_were_written(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        token = await storage.admin_tokens.by_hash("45c48cce2e2d7fbd")
        assert (token.id, token.role, token.is_active(1700000020)) == ("atk_ci", Role.ADMIN, True)
        ended = await storage.admin_tokens.by_hash("d3d9446802a44259")
        assert not ended.is_active(1700000700)
        kept = await storage.idempotency.get("atk_ci", "6512bd43d9caa6e0", now=1700000940)
        assert (kept.fingerprint, kept.answer) == ("c20ad4d76fe97759", b"\x00\xff\x5e\xa1\xed")
        begun = await storage.idempotency.get("atk_ci", "c51ce410c124a10e", now=1700000940)
        assert begun.answer is None


@pytest.mark.parametrize("revision", [each for each in REVISIONS if each >= "0007"])
async def test_a_node_stays_on_drain_and_the_database_its_hubs(database_url, revision):
    async with await released(database_url, revision) as storage:
        await storage.migrate()
        drained, other = await storage.nodes.get("node_box"), await storage.nodes.get("node_gone")
        assert (drained.draining_since, other.draining_since) == (1700000940.5, None)
        assert await storage.settings.claim("another") == "Km9NQZ0T6tvYH1IUwGgZ3X1uCqtBWcSxT0zC8wWk1aE"


# --- that fail

BROKEN = """
import os
import signal

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
branch_labels = None
depends_on = None


def upgrade():
    op.create_table("made_{revision}", sa.Column("id", sa.Integer(), primary_key=True))
    op.add_column("nodes", sa.Column("added_{revision}", sa.Integer(), nullable=True))
    op.execute("DELETE FROM usage_records")
    {end}
"""
UPGRADE = """
import asyncio, sys
from pathlib import Path
from hub.storage import migrate
from hub.storage.repositories import Storage

async def main(url, migrations):
    migrate._MIGRATIONS = Path(migrations)
    async with await Storage.open(url) as storage:
        await storage.migrate()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def with_broken(tmp_path):
    """The packaged migrations, then one that works, then one that does its work and ends as it is told to."""

    def make(end):
        folder = tmp_path / "migrations"
        shutil.copytree(migrate._MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
        for revision, before, last in (("9001", migrate.latest_revision(), "pass"), ("9002", "9001", end)):
            code = BROKEN.format(revision=revision, before=before, end=last)
            (folder / "versions" / f"{revision}_broken.py").write_text(code)
        return folder

    return make


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize("end", ["raise RuntimeError('broken')", "os.kill(os.getpid(), signal.SIGKILL)"])
async def test_a_migration_that_fails_or_is_killed_leaves_the_schema_before_it(
    database_url, with_broken, revision, end
):
    async with await released(database_url, revision) as storage:
        before = await rows_of_every_table(storage)
    folder = with_broken(end)
    done = subprocess.run(
        [sys.executable, "-c", UPGRADE, database_url, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (-signal.SIGKILL if "SIGKILL" in end else 1), done.stderr
    async with await Storage.open(database_url) as storage:
        assert await migrate.revision_of(storage.database) == revision
        assert await rows_of_every_table(storage) == before
        await storage.migrate()
        assert await differences(storage) == []
