"""How storage reaches its database.

Owns the engine's settings and the two kinds of transaction. A write takes SQLite's one write lock at its
first statement (``BEGIN IMMEDIATE``): a transaction that reads first and writes later could find its snapshot
stale and fail, however long the busy timeout. Knows no table but the revision counter; an act is written into
the audit log by :mod:`hub.storage.chain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, cast, event, update
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import Integer, Text

from hub.acting import current_actor
from hub.errors import StorageUnavailable
from hub.storage import tables
from hub.storage.chain import Act, append

REVISION = "revision"
"""The setting that every change of what other processes keep copies of raises by one."""

_BUSY_TIMEOUT_MS = 10_000
_IMMEDIATE = "porten_immediate"


def create_engine(url: str) -> AsyncEngine:
    """Make an engine for ``url``.

    Raises:
        StorageUnavailable: the URL is not one, or its driver is not installed.
    """
    try:
        engine = create_async_engine(url)
    except (ArgumentError, ImportError) as error:
        raise StorageUnavailable(f"the database URL cannot be used: {error}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


@dataclass(slots=True)
class _Together:
    """A transaction that one task shares between several commands; the first that writes begins it."""

    database: Database
    task: asyncio.Task[Any] | None
    stack: AsyncExitStack
    connection: AsyncConnection | None = None

    async def begun(self) -> AsyncConnection:
        """The connection, on which the transaction has begun."""
        if self.connection is None:
            self.connection = await self.stack.enter_async_context(self.database.begin())
        return self.connection


_together: ContextVar[_Together | None] = ContextVar("together", default=None)


class Database:
    """An engine, with transactions that say what they are for."""

    def __init__(self, engine: AsyncEngine, clock: Callable[[], float] = time.time) -> None:
        self.engine = engine
        self.clock = clock

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads."""
        shared = self._shared()
        if shared is not None and shared.connection is not None:
            yield shared.connection
            return
        async with self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def note(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction for what nobody keeps a copy of (liveness, polls, sessions, usage)."""
        if (shared := self._shared()) is None:
            async with self.begin() as connection:
                yield connection
            return
        connection = await shared.begun()
        async with connection.begin_nested():
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction of its own."""
        async with self.engine.connect() as connection:
            await connection.execution_options(**{_IMMEDIATE: True})
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that raises the revision, so that every Hub process reads again."""
        async with self.note() as connection:
            yield connection
            await connection.execute(_RAISE_REVISION)

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """One writing transaction for all that this task asks inside: all of it is done, or nothing.

        It begins with the first command that writes; each is a savepoint of it. Others cannot write from then
        on until it ends. Tasks that are begun inside have transactions of their own: they may outlive it.
        """
        async with AsyncExitStack() as stack:
            before = _together.set(_Together(self, asyncio.current_task(), stack))
            try:
                yield
            finally:
                _together.reset(before)

    def _shared(self) -> _Together | None:
        """The transaction that this very task shares between several commands."""
        found = _together.get()
        if found is None or found.database is not self or found.task is not asyncio.current_task():
            return None
        return found

    async def tell(
        self, connection: AsyncConnection, action: str, subject: str, *, of: str | None = None, **details: Any
    ) -> None:
        """Write into the audit log what is done in this transaction; whoever acts now did it.

        Args:
            connection: of the transaction in which it is done.
            action: what, such as ``key.created``.
            subject: the id of what it is done to.
            of: the organisation whose event it is; that of the actor where unset.
            details: what JSON can hold, no prompt and no secret. What tells who a person is goes in as
                `hub.acting.Personal`.
        """
        act = Act(
            action=action,
            actor=current_actor(),
            subject=subject,
            organisation_id=of,
            details=details,
            at=self.clock(),
        )
        await append(connection, [act])


_RAISE_REVISION = (
    update(tables.settings)
    .where(tables.settings.c.name == REVISION)
    .values(value=cast(cast(tables.settings.c.value, Integer) + 1, Text))
)


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Turn what the database raises while opening and migrating into our own error."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StorageUnavailable(f"the database cannot be used: {error}") from error


def _prepare_sqlite(connection: AsyncAdapt_aiosqlite_connection, _record: object) -> None:
    # The driver's own BEGIN comes late and is always deferred: turned off, ours is in _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        "synchronous = NORMAL",  # with WAL: a power cut may take the last commits, never the database
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is overwritten: erased is erased
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options: dict[str, Any] = dict(connection.get_execution_options())
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_IMMEDIATE) else "BEGIN")
