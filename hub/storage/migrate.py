"""Brings a database's schema up to date, from inside the program.

Owns the running of the packaged migrations; no ``alembic.ini`` and no command are needed. One migration run
is one transaction, so a failed one leaves nothing behind, and on SQLite it holds the write lock from its
start, so that two processes that begin together do it one after the other.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncEngine

from hub.errors import StorageUnavailable
from hub.storage.engine import Database

_MIGRATIONS = Path(__file__).with_name("migrations")


async def upgrade(engine: AsyncEngine) -> None:
    """Run every migration the database has not seen.

    Raises:
        StorageUnavailable: the database was written by a newer Hub.
    """
    async with Database(engine).note() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageUnavailable(
            f"the database was written by a newer porten-hub, or is not a Hub's: {error}"
        ) from error
