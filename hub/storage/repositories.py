"""The Hub's storage, one repository for each aggregate.

Owns opening, migrating and closing. Everything that is asked of it is asked in the domain's words; SQL stays
in this folder. Must not know HTTP, sessions or the clock (``now`` is an argument, UTC seconds since the
epoch; only the audit log's times come from one).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from hub.errors import StorageUnavailable
from hub.storage import migrate
from hub.storage.admin_tokens import AdminTokens
from hub.storage.audit import Audit
from hub.storage.credentials import ApiKeys, JoinTokens
from hub.storage.engine import Database, answered, create_engine
from hub.storage.enrollments import Enrollments
from hub.storage.erasure import Erasure
from hub.storage.idempotency import IdempotencyRecords
from hub.storage.identities import Identities
from hub.storage.members import Members
from hub.storage.nodes import Nodes
from hub.storage.people import Accounts, Organisations, PortalSessions
from hub.storage.regions import Regions
from hub.storage.second_steps import SecondSteps
from hub.storage.settings import Settings
from hub.storage.usage import Usage


class Storage:
    """What the Hub keeps. Safe to use from many tasks at once; an async context manager closes it.

    Every call that changes organisations, accounts, keys, nodes, tokens or regions raises
    :meth:`Settings.revision` in its own transaction.
    """

    def __init__(
        self, engine: AsyncEngine, clock: Callable[[], float] = time.time, *, answer_s: float | None = None
    ) -> None:
        self._engine = engine
        self.database = database = Database(engine, clock, answer_s=answer_s)
        self.organisations = Organisations(database)
        self.accounts = Accounts(database)
        self.sessions = PortalSessions(database)
        self.members = Members(database)
        self.identities = Identities(database)
        self.second_steps = SecondSteps(database)
        self.keys = ApiKeys(database)
        self.join_tokens = JoinTokens(database)
        self.admin_tokens = AdminTokens(database)
        self.idempotency = IdempotencyRecords(database)
        self.nodes = Nodes(database)
        self.regions = Regions(database)
        self.enrollments = Enrollments(database)
        self.usage = Usage(database)
        self.settings = Settings(database)
        self.audit = Audit(database)
        self.erasure = Erasure(database)

    @classmethod
    async def open(
        cls, url: str, clock: Callable[[], float] = time.time, *, answer_s: float | None = None
    ) -> Self:
        """Connect to the database at ``url``, such as ``sqlite+aiosqlite:///…/hub.db``.

        The schema is not touched: :meth:`migrate` brings it up to date.

        Args:
            url: of SQLite or PostgreSQL.
            clock: UTC seconds since the epoch: the audit log's times.
            answer_s: seconds after which a transaction that PostgreSQL does not answer is given up. A serving
                Hub sets it; commands, whose transactions may be long ones, wait as long as somebody does.

        Raises:
            StorageUnavailable: it cannot be reached.
        """
        storage = cls(create_engine(url, answer_s=answer_s), clock, answer_s=answer_s)
        try:
            await storage.check()
        except TypeError:  # asyncpg takes the URL's options for arguments
            await storage.close()
            raise StorageUnavailable("the database URL has an option that asyncpg does not know") from None
        except BaseException:
            await storage.close()
            raise
        return storage

    async def check(self, within_s: float | None = None) -> None:
        """Ask the database for a sign of life.

        Raises:
            StorageUnavailable: it gives none, or none within ``within_s`` seconds.
        """
        async with answered(within_s), self.database.read() as connection:
            await connection.execute(text("SELECT 1"))

    async def migrate(self) -> None:
        """Bring the schema up to date; does nothing where it is. Two processes may try at once.

        Raises:
            StorageUnavailable: the schema is newer than this Hub, or the migration failed and was undone.
        """
        await migrate.upgrade(self.database)

    def together(self) -> AbstractAsyncContextManager[None]:
        """All that this task asks inside is done, or nothing; see :meth:`Database.together`."""
        return self.database.together()

    async def close(self) -> None:
        """Give back every connection."""
        await self._engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
