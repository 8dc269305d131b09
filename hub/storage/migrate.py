"""Brings a database's schema up to date, from inside the program.

Owns the running of the packaged migrations; no ``alembic.ini`` and no command are needed. One migration run
is one transaction, so a failed one leaves nothing behind, and on SQLite it holds the write lock from its
start, so that two processes that begin together do it one after the other.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from hub.errors import StorageUnavailable
from hub.storage.engine import Database

_MIGRATIONS = Path(__file__).with_name("migrations")


async def upgrade(database: Database) -> None:
    """Run every migration the database has not seen, and write that into the audit log.

    Raises:
        StorageUnavailable: the database was written by a newer Hub.
    """
    async with database.note() as connection:
        before, after = await connection.run_sync(_upgrade)
        if before != after:
            await database.tell(connection, "schema.migrated", after or "none", before=before)


def _upgrade(connection: Connection) -> tuple[str | None, str | None]:
    """Bring the schema up to date; its version before and after."""
    before = _version(connection)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageUnavailable(
            f"the database was written by a newer porten-hub, or is not a Hub's: {error}"
        ) from error
    return before, _version(connection)


def _version(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
