"""Databases whose schema stands already: made once in a run, and copied for each test.

That the schema comes about is tested where migrations are; everywhere else it only takes time.
"""

import asyncio
import shutil
from pathlib import Path

from hub.storage.repositories import Storage
from tests.postgres import PostgresServer

TEMPLATE = "porten_template"


class Prepared:
    """Gives every test a database of its own with the present schema."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "hub.db"
        asyncio.run(_migrate(f"sqlite:///{self._file}"))
        self._servers: set[Path] = set()

    def copy_to(self, file: Path) -> None:
        """Make a file of SQLite there, where no database is yet."""
        assert not file.exists()
        shutil.copyfile(self._file, file)

    async def replace(self, postgres: PostgresServer, database: str) -> None:
        """Put a database with the schema in the place of an empty one."""
        if postgres.folder not in self._servers:
            await _migrate(postgres.create(TEMPLATE))
            self._servers.add(postgres.folder)
        postgres.drop(database)
        postgres.create(database, template=TEMPLATE)


async def _migrate(url: str) -> None:
    async with await Storage.open(url) as storage:
        await storage.migrate()
