"""The schema: what the migrations build is what the tables say, however often and by whomever."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from hub.errors import StorageUnavailable
from hub.storage.repositories import Storage
from hub.storage.tables import metadata


async def test_the_migrations_build_what_the_tables_say(storage):
    def differences(connection):
        return compare_metadata(MigrationContext.configure(connection, opts={"compare_type": True}), metadata)

    async with storage._engine.connect() as connection:
        assert await connection.run_sync(differences) == []


async def test_two_processes_may_migrate_at_once_and_again(database_url):
    async with await Storage.open(database_url) as one, await Storage.open(database_url) as other:
        await asyncio.gather(one.migrate(), other.migrate())
        await one.migrate()
        assert await other.settings.revision() == 0


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
