"""How storage reaches its database.

Owns the engine's settings, the two kinds of transaction, and which failures mean that the database cannot be
asked. On SQLite a write takes the one write lock at its first statement (``BEGIN IMMEDIATE``): a transaction
that reads first and writes later could find its snapshot stale and fail, however long the busy timeout. Knows
no table but the revision counter; an act is written into the audit log by :mod:`hub.storage.chain`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Connection, cast, event, make_url, update
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection
from sqlalchemy.exc import ArgumentError, DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.types import Integer, Text

from hub.acting import current_actor
from hub.errors import StorageUnavailable
from hub.storage import tables
from hub.storage.authority import check_leave
from hub.storage.chain import Act, append, lock_head

REVISION = "revision"
"""The setting that every change of what other processes keep copies of raises by one."""

ANSWER_S = 10.0
"""Seconds that a serving Hub waits for a transaction: a database that hangs must hang nothing else."""
CONNECT_S = 5.0
"""Seconds that a connection to PostgreSQL may take to be made, or to become free in the pool."""

_BUSY_TIMEOUT_MS = 10_000
_WAL_LIMIT_BYTES = 64 * 1024 * 1024
_WRITES = "porten_writes"
_DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
}
_ABOUT_CONTENT = ("22", "23")  # classes of SQLSTATE: data exception, integrity constraint violation
_ABOUT_THE_SERVER = ("08", "28", "3D", "53", "55", "57", "58")
"""Those whose words are about the server and never about a value: connection, authorization, no such
database, resources, not in a state, operator, system."""


def create_engine(url: str, *, answer_s: float | None = None) -> AsyncEngine:
    """Make an engine for ``url``. No error of it repeats the URL, which may hold a password.

    Args:
        url: of SQLite (``sqlite:///…``) or PostgreSQL (``postgresql://…``).
        answer_s: seconds after which PostgreSQL itself gives up a statement; unset, never.

    Raises:
        StorageUnavailable: the URL is not one, or its driver is not installed.
    """
    try:
        address = _address(url)
        if address.get_backend_name() == "postgresql":
            return create_async_engine(address, hide_parameters=True, **_postgresql_options(answer_s))
        engine = create_async_engine(address, hide_parameters=True)
    except ImportError as error:
        name = error.name or "the driver"
        raise StorageUnavailable(f"{name} is not installed: pip install 'porten[postgres]'") from None
    except (ArgumentError, ValueError):
        raise StorageUnavailable(
            "the database URL cannot be used: write sqlite:////path/hub.db or postgresql://user@host/name"
        ) from None
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
    """An engine, with transactions that say what they are for.

    Each of them raises `StorageUnavailable` where the database cannot be asked or does not answer, whatever
    the driver calls it; what it refused for its content stays SQLAlchemy's ``IntegrityError`` or the like.
    """

    def __init__(
        self, engine: AsyncEngine, clock: Callable[[], float] = time.time, *, answer_s: float | None = None
    ) -> None:
        """Use an engine.

        Args:
            engine: of :func:`create_engine`.
            clock: UTC seconds since the epoch: the audit log's times.
            answer_s: seconds that a whole transaction may take on PostgreSQL. SQLite's own wait is bounded.
        """
        self.engine = engine
        self.clock = clock
        self._answer_s = answer_s if engine.dialect.name == "postgresql" else None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads."""
        shared = self._shared()
        if shared is not None and shared.connection is not None:
            yield shared.connection
            return
        async with answered(self._answer_s), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def note(self, *, durable: bool = True) -> AsyncIterator[AsyncConnection]:
        """A writing transaction for what nobody keeps a copy of (liveness, polls, sessions, usage).

        Args:
            durable: on the disk before it is told. Liveness needs no such thing: a power cut ends what it is
                about too, and a thousand nodes that come back together would wait for a thousand writes.
        """
        if (shared := self._shared()) is None:
            async with self.begin(durable=durable) as connection:
                yield connection
            return
        connection = await shared.begun()
        async with answered(self._answer_s), connection.begin_nested():
            yield connection

    @asynccontextmanager
    async def begin(self, *, durable: bool = True) -> AsyncIterator[AsyncConnection]:
        """A writing transaction of its own; see `note`."""
        async with answered(self._answer_s), self.engine.connect() as connection:
            await connection.execution_options(**{_WRITES: "FULL" if durable else "NORMAL"})
            async with connection.begin():
                yield connection

    @asynccontextmanager
    async def change(self) -> AsyncIterator[AsyncConnection]:
        """A writing transaction that raises the revision, so that every Hub process reads again.

        On PostgreSQL the revision's row is locked from here to the commit: whoever sees a revision sees all
        that was changed up to it.
        """
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
        """Write into the audit log what is done in this transaction; whoever acts now did it, and still may.

        The one place that all administrative acts pass, so what lets somebody act is looked at here again.
        What somebody does to their own account or token may well end it, and needs no more than to be them.

        Args:
            connection: of the transaction in which it is done.
            action: what, such as ``key.created``.
            subject: the id of what it is done to.
            of: the organisation whose event it is; that of the actor where unset.
            details: what JSON can hold, no prompt and no secret. What tells who a person is goes in as
                `hub.acting.Personal`.

        Raises:
            SignedOut, NotAllowed, AdminTokenInvalid: what let the actor in has ended meanwhile; see
                `hub.storage.authority.check_leave`.
        """
        actor = current_actor()
        if actor.leave is not None and subject != actor.id:
            await lock_head(connection)
            await check_leave(connection, actor, now=self.clock())
        act = Act(
            action=action,
            actor=actor,
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
async def answered(within_s: float | None = None) -> AsyncIterator[None]:
    """Turn what the database raises when it cannot be asked into our own error.

    A wait that is over is ended by cancelling it: SQLAlchemy then gives the connection up instead of tidying
    it, which would wait for the same server.

    Raises:
        StorageUnavailable: it cannot be reached or used, or did not answer within ``within_s`` seconds.
    """
    try:
        async with asyncio.timeout(within_s):
            yield
    except (SQLAlchemyError, OSError) as error:
        if is_about_content(error):
            raise
        raise StorageUnavailable(f"the database does not answer: {_words(error)}") from error


def is_about_content(error: BaseException) -> bool:
    """Whether the database refused what it was given (a constraint, a value out of range) and so is there."""
    cause = _cause(error)
    return (
        isinstance(error, IntegrityError | DataError)
        or isinstance(cause, ValueError)  # asyncpg found the value out of range itself
        or _state(cause)[:2] in _ABOUT_CONTENT
    )


def _words(error: BaseException) -> str:
    """What may be said of an error: its kind, and its words only where they cannot hold a value."""
    cause = _cause(error)
    kind = type(cause).__name__
    if isinstance(cause, TimeoutError):
        return "the time is up"
    if isinstance(cause, OSError):
        return cause.strerror or kind
    if _state(cause)[:2] in _ABOUT_THE_SERVER or type(cause).__module__.startswith("sqlite3"):
        return str(cause).partition("\n")[0]
    return kind


def _cause(error: BaseException) -> BaseException:
    """The driver's own exception inside SQLAlchemy's."""
    inner = getattr(error, "orig", None) or error
    return inner.__cause__ or inner if inner is not error else error


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_usable(url: str) -> bool:
    """Whether a URL is one of a database of a kind that there is here, whatever answers there."""
    try:
        _address(url)
    except (ArgumentError, ValueError):
        return False
    return True


def shown_url(url: str) -> str:
    """A URL as it may be shown: without its password, wherever that stands."""
    try:
        address = make_url(url)
    except (ArgumentError, ValueError):
        return "(no URL of a database)"
    address = address.set(drivername=address.get_backend_name())  # which driver is ours to choose
    return address.difference_update_query(["password"]).render_as_string(hide_password=True)


def _address(url: str) -> URL:
    address = make_url(url)
    address = address.set(drivername=_DRIVERS.get(address.drivername, address.drivername))
    if address.drivername not in _DRIVERS.values():
        raise ArgumentError("neither SQLite nor PostgreSQL, or another driver than ours")
    if "sslmode" in address.query:  # libpq's name for what asyncpg calls ssl
        address = address.update_query_dict({"ssl": address.query["sslmode"]}).difference_update_query(
            ["sslmode"]
        )
    return address


def _postgresql_options(answer_s: float | None) -> dict[str, Any]:
    settings = {"application_name": "porten-hub"}
    if answer_s is not None:
        limit = f"{answer_s * 1000:.0f}"
        # A Hub that is stopped in the middle must not hold others up for longer than it would wait itself.
        settings |= {"statement_timeout": limit, "idle_in_transaction_session_timeout": limit}
    return {
        "connect_args": {
            "timeout": CONNECT_S,
            # The second line behind `answered`: giving a connection back is a statement too.
            "command_timeout": None if answer_s is None else 2 * answer_s,
            "server_settings": settings,
        },
        "pool_timeout": CONNECT_S,
        "pool_pre_ping": True,  # after an outage nobody meets what is left of the connections before it
    }


def _prepare_sqlite(connection: AsyncAdapt_aiosqlite_connection, _record: object) -> None:
    # The driver's own BEGIN comes late and is always deferred: turned off, ours is in _begin_sqlite.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
        "journal_mode = WAL",
        f"journal_size_limit = {_WAL_LIMIT_BYTES}",  # what a long reader made the log grow to is given back
        "foreign_keys = ON",
        "secure_delete = ON",  # what is deleted is overwritten: erased is erased
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    """With a log, FULL has each commit on the disk before it is told: a power cut brings no revoked key back.

    NORMAL may lose the last commits, never the database.
    """
    synchronous = dict[str, Any](connection.get_execution_options()).get(_WRITES)
    if synchronous is None:
        connection.exec_driver_sql("BEGIN")
        return
    connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
    connection.exec_driver_sql("BEGIN IMMEDIATE")
