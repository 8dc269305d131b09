"""Brings a database's schema up to date, from inside the program.

Owns the running of the packaged migrations; no ``alembic.ini`` and no command are needed. One migration run
is one transaction on both databases, so that one which fails or is killed leaves the schema before it, and it
holds a lock from its start (SQLite's write lock, an advisory lock of PostgreSQL), so that two processes that
begin together do it one after the other.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, inspect, text
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import StorageUnavailable
from hub.storage.engine import Database
from hub.storage.tables import audit_head

LATEST = "head"

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = text(f"SELECT pg_advisory_xact_lock({0x706F7274656E})")  # "porten": a number that is nobody else's


async def upgrade(database: Database, revision: str = LATEST) -> None:
    """Run every migration up to ``revision`` that the database has not seen; the audit log is told of it.

    Raises:
        StorageUnavailable: the database was written by a newer Hub, or the migration failed and was undone.
    """
    async with database.note() as connection:
        before, after = await upgrade_within(connection, revision)
        if before != after and await _has_audit_log(connection):
            await database.tell(connection, "schema.migrated", after or "none", before=before)


async def upgrade_within(
    connection: AsyncConnection, revision: str = LATEST
) -> tuple[str | None, str | None]:
    """The same inside a transaction of the caller's, who decides whether it counts and tells of it.

    Returns:
        The revision before and after.

    Raises:
        StorageUnavailable: there is no such revision, or the database is beyond it.
    """
    await lock(connection)  # before anything is read; Alembic itself keeps what it works on in globals
    before = await revision_within(connection)
    await connection.run_sync(_upgrade, revision)
    return before, await revision_within(connection)


async def _has_audit_log(connection: AsyncConnection) -> bool:
    """Whether the schema is one with an audit log: the first two were without."""
    return await connection.run_sync(lambda inner: inspect(inner).has_table(audit_head.name))


async def lock(connection: AsyncConnection) -> None:
    """Hold up whoever else would change the schema, until the transaction ends. SQLite does so by itself."""
    if connection.dialect.name == "postgresql":
        await connection.execute(_LOCK)


async def revision_of(database: Database) -> str | None:
    """The revision of a database's schema; None where there is none yet."""
    async with database.read() as connection:
        return await revision_within(connection)


async def revision_within(connection: AsyncConnection) -> str | None:
    """The same inside a transaction of the caller's."""
    return await connection.run_sync(lambda inner: MigrationContext.configure(inner).get_current_revision())


def is_known(revision: str | None) -> bool:
    """Whether this version of the program has a migration of that name."""
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    return revision in known


def latest_revision() -> str:
    """The revision that this version of the program works with."""
    return str(ScriptDirectory.from_config(_config()).get_current_head())


def _upgrade(connection: Connection, revision: str) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise StorageUnavailable(
            f"the database was written by a newer porten-hub, or is not a Hub's: {error}"
        ) from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
