"""The file of a backup: all that a Hub keeps, in a form that belongs to no database.

Owns the format and its checksums. Must not know databases. A file is gzip (RFC 1952) over lines of JSON:

1. the head, an object: format, version, program, schema, hub_id, made_at, tables, key;
2. for each table a line ``{"table": name}``, a line with an array for each row, in the order of the head's
   columns, and ``{"end": name, "rows": count, "digest": hex}``;
3. ``{"complete": rows of all tables, "sha256": of every byte before this line}``.

Text, numbers, booleans and null stand as they are, bytes as base64, infinite numbers as text. A table's
digest is the sum, modulo 2^256, of the SHA-256 of each row's line: the same in whatever order they come.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from hub.errors import BackupInvalid

FORMAT = "porten-hub-backup"
VERSION = 1
BATCH_ROWS = 1000

Row = Sequence[Any]


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup says of itself.

    Attributes:
        program: the version of the program that made it.
        schema: the revision of the schema it was made of.
        hub_id: whose it is.
        made_at: UTC seconds since the epoch.
        tables: the columns of each table, those that others refer to first.
        key: the Hub's own key as PEM, where it was asked for.
    """

    format: str = FORMAT
    version: int = VERSION
    program: str
    schema: str
    hub_id: str
    made_at: float
    tables: dict[str, tuple[str, ...]]
    key: str | None = None

    def __repr__(self) -> str:
        """Without the key."""
        return f"Head(hub_id={self.hub_id!r}, schema={self.schema!r}, made_at={self.made_at!r})"


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    table: str


class _End(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    end: str
    rows: int
    digest: str


class _Complete(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    complete: int
    sha256: str


class TableSum:
    """Count and digest of a table's rows, whatever their order."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Row) -> bytes:
        """Count a row; returns its line."""
        line = msgspec.json.encode([_plain(value) for value in row])
        self.add_line(line)
        return line

    def add_line(self, line: bytes) -> None:
        """Count a row by its line."""
        self.rows += 1
        self._sum = (self._sum + int.from_bytes(hashlib.sha256(line).digest())) % 2**256

    @property
    def digest(self) -> str:
        """The sum in hex."""
        return f"{self._sum:064x}"


@dataclass(frozen=True, slots=True)
class Contents:
    """A backup that was read to its end and is whole. ``sums`` has count and digest of each table."""

    head: Head
    sums: Mapping[str, tuple[int, str]]

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(rows for rows, _ in self.sums.values())


class ArchiveWriter:
    """Writes a backup, table by table in the order of its head.

    Raises, in all it does:
        BackupInvalid: the file cannot be written, such as on a full disk.
    """

    def __init__(self, file: BinaryIO, head: Head) -> None:
        self._file = file
        self._gzip = zlib.compressobj(wbits=31)  # zlib's number for a gzip header, without name or time
        self._hash = hashlib.sha256()
        self._rows = 0
        self._line(msgspec.json.encode(head))

    def _line(self, line: bytes) -> None:
        self._hash.update(line + b"\n")
        self._write(self._gzip.compress(line + b"\n"))

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as error:
            raise BackupInvalid(f"the backup cannot be written: {error.strerror}") from error

    @contextmanager
    def table(self, name: str) -> Iterator[TableSum]:
        """Begin a table and end it; its rows go through :meth:`row`."""
        self._line(msgspec.json.encode(_Table(name)))
        total = TableSum()
        yield total
        self._rows += total.rows
        self._line(msgspec.json.encode(_End(name, total.rows, total.digest)))

    def row(self, total: TableSum, row: Row) -> None:
        """Write a row of the table that was begun."""
        self._line(total.add(row))

    def complete(self) -> None:
        """Write the line without which a backup is none."""
        self._line(msgspec.json.encode(_Complete(self._rows, self._hash.hexdigest())))
        self._write(self._gzip.flush())


def verify(path: Path) -> Contents:
    """Read a backup to its end.

    Raises:
        BackupInvalid: it is none, it is cut off or damaged, or a newer program made it.
    """
    reader = _Reader(path)
    for _ in reader.batches():
        pass
    assert reader.head is not None
    return Contents(reader.head, reader.sums)


def rows_of(path: Path) -> Iterator[tuple[str, list[list[Any]]]]:
    """The rows of a backup, in batches of one table.

    Raises:
        BackupInvalid: as for :func:`verify`; only its end says that all before it was whole.
    """
    return _Reader(path).batches()


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._hash = hashlib.sha256()
        self.head: Head | None = None
        self.sums: dict[str, tuple[int, str]] = {}

    def batches(self) -> Iterator[tuple[str, list[list[Any]]]]:
        try:
            with gzip.open(self._path, "rb") as file:
                yield from self._batches(cast("BinaryIO", file))
        except (OSError, EOFError, zlib.error) as error:
            words = "there is none" if isinstance(error, FileNotFoundError) else "it is cut off or damaged"
            raise BackupInvalid(f"{self._path} cannot be read as a backup: {words}") from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BackupInvalid(f"{self._path} is no backup of a Hub, or is damaged") from error

    def _batches(self, file: BinaryIO) -> Iterator[tuple[str, list[list[Any]]]]:
        self.head = self._read_head(self._next(file))
        for name in self.head.tables:
            yield from self._table(file, name)
        written = self._hash.hexdigest()
        last = msgspec.json.decode(self._next(file), type=_Complete)
        if last.sha256 != written or last.complete != sum(rows for rows, _ in self.sums.values()):
            raise BackupInvalid(f"{self._path} is damaged: its checksum is another")
        if file.read(1):  # gzip's own checksum is looked at only where its end is read
            raise BackupInvalid(f"{self._path} is damaged: it goes on after its end")

    def _read_head(self, line: bytes) -> Head:
        head = msgspec.json.decode(line, type=Head)
        if head.format != FORMAT:
            raise BackupInvalid(f"{self._path} is no backup of a Hub")
        if head.version > VERSION:
            raise BackupInvalid(
                f"{self._path} was made by porten-hub {head.program}, which is newer than this one"
            )
        return head

    def _table(self, file: BinaryIO, name: str) -> Iterator[tuple[str, list[list[Any]]]]:
        if msgspec.json.decode(self._next(file), type=_Table).table != name:
            raise BackupInvalid(f"{self._path} is damaged: the table {name} is not where it should be")
        total, batch = TableSum(), []
        while (line := self._next(file)).startswith(b"["):
            total.add_line(line)
            batch.append(msgspec.json.decode(line, type=list[Any]))
            if len(batch) == BATCH_ROWS:
                yield name, batch
                batch = []
        end = msgspec.json.decode(line, type=_End)
        if end != _End(name, total.rows, total.digest):
            raise BackupInvalid(f"{self._path} is damaged: rows of the table {name} are not those written")
        self.sums[name] = (total.rows, total.digest)
        if batch:
            yield name, batch

    def _next(self, file: BinaryIO) -> bytes:
        line = file.readline()
        if not line.endswith(b"\n"):
            raise BackupInvalid(f"{self._path} is cut off: it has no end")
        self._hash.update(line)
        return line[:-1]


def _plain(value: object) -> object:
    """JSON knows no infinities: they stand as text, which the column's type reads again."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
