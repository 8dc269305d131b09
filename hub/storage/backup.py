"""All of a database into a file, and back: also the way from SQLite to PostgreSQL and from there to SQLite.

Owns the one snapshot that a backup is made of, and the one transaction that a restore is: killed at any
moment it leaves what was there before, or all of the new. Tables are found in the database itself, so that
none can be forgotten. Must not know keys, settings or terminals.
"""

from __future__ import annotations

import base64
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import (
    Column,
    Connection,
    Float,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from hub.errors import BackupExists, BackupInvalid, HubHasData, StorageUnavailable
from hub.storage import archive, migrate
from hub.storage.archive import ArchiveWriter, Contents, Head, Row, TableSum
from hub.storage.chain import lock_head
from hub.storage.engine import REVISION, Database, answered
from hub.storage.tables import audit_head, settings

Told = Callable[[str, int, int], None]
"""Told how far it is: the table, rows done, rows in all."""

_ALEMBICS = "alembic_version"
_HUB_ID = "hub_id"


async def dump(
    database: Database, path: Path, *, program: str, now: float, key: str | None, told: Told
) -> Contents:
    """Write a backup and read it again; a Hub that runs meanwhile is not held up.

    Args:
        database: of whatever revision.
        path: made with mode 0600; until it is whole it has another name.
        program: the version of the program.
        now: UTC seconds since the epoch.
        key: the Hub's key as PEM, if it is to be in it.
        told: told how far it is.

    Raises:
        BackupExists: there is a file of that name.
        BackupInvalid: the file cannot be written.
        StorageUnavailable: the database cannot be read, or holds no Hub.
    """
    try:
        with _published(path) as file:
            async with answered(), _snapshot(database) as connection:
                await _write(connection, file, program=program, now=now, key=key, told=told)
    except OSError as error:
        raise BackupInvalid(f"{path} cannot be written: {error.strerror}") from error
    return archive.verify(path)


async def restore(database: Database, path: Path, *, overwrite: bool, told: Told) -> Contents:
    """Put a backup in the place of what a database holds, and bring its schema up to date.

    Args:
        database: empty, or a Hub's.
        path: the backup; read to its end before anything is touched.
        overwrite: also where the Hub has data.
        told: told how far it is.

    The audit log is the backup's from then on, and goes on with an event that says so, and how far the log
    went that was here.

    Raises:
        BackupInvalid: it is none, damaged, or what arrived is not what it holds.
        HubHasData: there is a Hub with data, and nobody said to overwrite it.
        StorageUnavailable: the database cannot be written, is not a Hub's, or the backup is of a newer Hub.
    """
    contents = archive.verify(path)
    async with database.note() as connection:
        before, replaced = await _clear(connection, overwrite=overwrite)
        await migrate.upgrade_within(connection, contents.head.schema)
        tables = await _tables(connection)
        await _insert(connection, tables, path, contents, told)
        await _check(connection, tables, contents)
        await _continue_numbering(connection, tables)
        await _raise_revision(connection, before)
        await migrate.upgrade_within(connection)
        head = contents.head
        made: dict[str, Any] = {"made_at": head.made_at, "program": head.program, "schema": head.schema}
        await database.tell(connection, "hub.restored", head.hub_id, **made, **replaced)
    return contents


# --- out


@contextmanager
def _published(path: Path) -> Iterator[BinaryIO]:
    """A file that gets its name once it is whole and on the disk."""
    draft = path.with_name(f"{path.name}.part")
    with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupExists(f"another backup is being written to {path}") from None
        if path.exists():
            draft.unlink()
            raise BackupExists(f"{path} is there already: name another file, or remove it")
        file.truncate()
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.link(draft, path)
        except FileExistsError:
            raise BackupExists(f"{path} is there already: name another file, or remove it") from None
        finally:
            draft.unlink()


@asynccontextmanager
async def _snapshot(database: Database) -> AsyncIterator[AsyncConnection]:
    """A transaction that sees one moment, however long it reads."""
    async with database.engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        yield connection  # SQLite's read transactions are such by themselves, in WAL


async def _write(
    connection: AsyncConnection, file: BinaryIO, *, program: str, now: float, key: str | None, told: Told
) -> None:
    schema = await migrate.revision_within(connection)
    if schema is None:
        raise StorageUnavailable("the database holds no Hub: run `porten-hub init` first")
    tables = await _tables(connection)
    counts = [await connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables]
    named = select(settings.c.value).where(settings.c.name == _HUB_ID)
    head = Head(
        program=program,
        schema=schema,
        hub_id=str(await connection.scalar(named) or ""),
        made_at=now,
        tables={str(table.name): tuple(str(column.name) for column in table.columns) for table in tables},
        key=key,
    )
    writer, done, total = ArchiveWriter(file, head), 0, sum(counts)
    for table in tables:
        with writer.table(str(table.name)) as written:
            async for rows in _batches(connection, table):
                for row in rows:
                    writer.row(written, row)
                told(table.name, done + written.rows, total)
        done += written.rows
    writer.complete()


async def _batches(connection: AsyncConnection, table: Table) -> AsyncIterator[Sequence[Row]]:
    """A table's rows; of one that refers to itself, those first that others refer to."""
    query = select(table).order_by(*table.primary_key.columns)
    if upward := _upward(table):
        yield _parents_first((await connection.execute(query)).all(), *upward)
        return
    async with connection.stream(query) as stream:
        async for rows in stream.partitions(archive.BATCH_ROWS):
            yield rows


def _upward(table: Table) -> tuple[int, int] | None:
    """Of a table that refers to itself: the places of a row's own value and of its parent's."""
    names = list(table.columns.keys())
    for key in table.foreign_keys:
        if key.column.table is table:
            return names.index(key.column.name), names.index(key.parent.name)
    return None


def _parents_first(rows: Sequence[Row], own: int, parent: int) -> list[Row]:
    waiting, placed, ordered = list(rows), {None}, []
    while waiting:
        ready = [row for row in waiting if row[parent] in placed]
        if not ready:
            raise BackupInvalid("rows refer to each other in a circle, or to none that is there")
        ordered += ready
        placed |= {row[own] for row in ready}
        waiting = [row for row in waiting if row[own] not in placed]
    return ordered


async def _tables(connection: AsyncConnection) -> list[Table]:
    """What the database itself says it has, those that others refer to first."""

    def reflect(inner: Connection) -> list[Table]:
        found = MetaData()
        found.reflect(inner)
        return [table for table in found.sorted_tables if table.name != _ALEMBICS]

    return await connection.run_sync(reflect)


# --- in


async def _clear(connection: AsyncConnection, *, overwrite: bool) -> tuple[int, dict[str, Any]]:
    """Remove a Hub's tables, if that may be.

    Returns:
        Its revision counter, 0 where there was no Hub; and what is told of its audit log, where it had one.
    """
    await migrate.lock(connection)
    tables = await _tables(connection)
    if not tables:
        return 0, {}
    if not migrate.is_known(await migrate.revision_within(connection)):
        raise StorageUnavailable(
            "the database holds tables that are not a Hub's, or a newer Hub's: name another"
        )
    by_name = {table.name: table for table in tables}
    if not overwrite and await connection.scalar(select(by_name["organisations"].c.id).limit(1)) is not None:
        raise HubHasData("there is a Hub with data: say --overwrite to put the backup in its place")
    counter = await connection.scalar(select(settings.c.value).where(settings.c.name == REVISION))
    replaced: dict[str, Any] = {}
    if audit_head.name in by_name:
        sequence, digest = await lock_head(connection)
        replaced = {"replaced_events": sequence, "replaced_hash": digest}
    for table in reversed(tables):
        await connection.execute(text(f'DROP TABLE "{table.name}"'))
    await connection.execute(text(f"DROP TABLE {_ALEMBICS}"))
    return int(counter or 0), replaced


async def _insert(
    connection: AsyncConnection, tables: Sequence[Table], path: Path, contents: Contents, told: Told
) -> None:
    by_name = {table.name: table for table in tables}
    if by_name.keys() != contents.head.tables.keys():
        raise BackupInvalid(f"{path} does not have the tables of its revision {contents.head.schema}")
    for table in reversed(tables):
        await connection.execute(table.delete())  # what migrations put there themselves
    done = 0
    for name, rows in archive.rows_of(path):
        readers = _readers(by_name[name], contents.head.tables[name])
        await connection.execute(
            insert(by_name[name]), [dict(zip(readers, _read(row, readers), strict=True)) for row in rows]
        )
        done += len(rows)
        told(name, done, contents.rows)


def _readers(table: Table, columns: Sequence[str]) -> Mapping[str, Callable[[Any], Any]]:
    try:
        return {name: _reader(table.columns[name]) for name in columns}
    except KeyError as error:
        raise BackupInvalid(f"the table {table.name} has no column {error} in this revision") from error


def _reader(column: Column[Any]) -> Callable[[Any], Any]:
    """What reads a value of JSON as the column's type has it."""
    if isinstance(column.type, LargeBinary):
        return base64.b64decode
    return float if isinstance(column.type, Float) else _same


def _same(value: Any) -> Any:
    return value


def _read(row: Row, readers: Mapping[str, Callable[[Any], Any]]) -> list[Any]:
    return [None if value is None else read(value) for value, read in zip(row, readers.values(), strict=True)]


async def _check(connection: AsyncConnection, tables: Sequence[Table], contents: Contents) -> None:
    """Read what was written: it counts only if it is what the backup holds."""
    for table in tables:
        columns = [table.columns[name] for name in contents.head.tables[table.name]]
        total = TableSum()
        async with connection.stream(select(*columns)) as stream:
            async for row in stream:
                total.add(row)
        if connection.dialect.name == "postgresql":
            await connection.execute(text("CLOSE ALL"))  # an open cursor would keep the table from migrations
        if (total.rows, total.digest) != contents.sums[table.name]:
            raise BackupInvalid(f"the table {table.name} did not arrive as it is in the backup")


async def _continue_numbering(connection: AsyncConnection, tables: Sequence[Table]) -> None:
    """PostgreSQL numbers rows by a sequence, which rows that bring their numbers do not move."""
    if connection.dialect.name != "postgresql":
        return
    for table in tables:
        for column in table.primary_key.columns:
            sequence = await connection.scalar(
                text("SELECT pg_get_serial_sequence(:name, :column)"),
                {"name": f'"{table.name}"', "column": column.name},
            )
            highest = await connection.scalar(select(func.max(column))) if sequence else None
            if highest is not None:
                await connection.execute(
                    text("SELECT setval(CAST(:name AS regclass), :value)"),
                    {"name": sequence, "value": highest},
                )


async def _raise_revision(connection: AsyncConnection, before: int) -> None:
    """Beyond both: a Hub that was not stopped must not take the new state for the one that it knows."""
    mine = settings.c.name == REVISION
    restored = int(await connection.scalar(select(settings.c.value).where(mine)) or 0)
    await connection.execute(update(settings).where(mine).values(value=str(max(before, restored) + 1)))
