"""Records that survive the process, on their way into storage.

Owns the files: a record is one line appended by one ``write`` before the caller goes on, and the kernel keeps
what was written when the process is killed. A background task moves whole files into storage and deletes each
only once its records are committed; a file that is read twice must count once, which storage sees to, by the
records' own ids or by the name of the batch. Several processes may share a directory, as when a Hub is
restarted while the one before it still finishes answers: each owns its files by a lock that dies with it, and
what a dead one left is stored by whoever comes next. Must not know what a record means. (A power cut can take
the last records of the moment: lines are not forced to the disk one by one.)
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from hub.errors import SpoolUnavailable, StorageUnavailable

log = logging.getLogger(__name__)

MIN_FREE_BYTES = 1024 * 1024
RETRY_S = 2.0
"""How long the background waits after storage failed; records stay in the spool meanwhile."""

_SEGMENT_SUFFIX = ".jsonl"
_DAMAGED_SUFFIX = ".damaged"
_LOCK_SUFFIX = ".lock"

Record = TypeVar("Record")
Marked = TypeVar("Marked")

Store = Callable[[str, Sequence[Record]], Awaitable[None]]
"""Takes a batch by its name, which is the same when the batch comes a second time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """When records go to storage.

    Attributes:
        every_s: seconds between two looks.
        full: records after which a file is moved at once.
        at_once: records that are handed to storage together.
    """

    every_s: float
    full: int
    at_once: int


class Spool(Generic[Record]):
    """Keeps records of one type. An async context manager: entering stores what an earlier process left.

    Attributes:
        waiting: records of this process that are not in storage yet.
    """

    def __init__(
        self, directory: Path, kind: type[Record], store: Store[Record], *, name: str, pace: Pace
    ) -> None:
        """Keep records in a directory.

        Args:
            directory: where they wait; made if need be.
            kind: their type, which msgspec can write and read.
            store: takes them; raises what SQLAlchemy raises for what it refuses, and `StorageUnavailable`.
            name: what log lines call them.
            pace: when they go.
        """
        self._directory = directory
        self._kind = kind
        self._store_batch = store
        self._name = name
        self._pace = pace
        self._lock: int | None = None
        self._segment: int | None = None
        self._segment_path: Path | None = None
        self._in_segment = 0
        self.waiting = 0
        self._sequence = 0
        self._run = secrets.token_hex(4)
        self._due = asyncio.Event()
        self._stopping = False
        self._deferred = False
        self._flushing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def record(self, record: Record) -> None:
        """Append a record. When this returns, a killed process no longer loses it.

        Raises:
            SpoolUnavailable: the file cannot be written, such as on a full disk.
        """
        line = msgspec.json.encode(record) + b"\n"
        try:
            descriptor = self._segment if self._segment is not None else self._open_segment()
            written = os.write(descriptor, line)
        except OSError as error:
            raise SpoolUnavailable(f"the {self._name} spool cannot be written: {error.strerror}") from error
        self._in_segment += 1
        if written != len(line):
            self._close_segment()  # the torn line stays the last of its file
            raise SpoolUnavailable(f"the {self._name} spool's disk is full")
        self.waiting += 1
        if self._in_segment >= self._pace.full:
            self._due.set()

    def has_room(self) -> bool:
        """Whether the spool's disk has room for the records of what is begun now."""
        try:
            disk = os.statvfs(self._directory)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize >= MIN_FREE_BYTES

    async def flush(self) -> None:
        """Move everything recorded so far into storage.

        Raises:
            StorageUnavailable: nothing is lost, and the next flush tries again.
        """
        async with self.settled(lambda: None):
            pass

    @asynccontextmanager
    async def settled(self, mark: Callable[[], Marked]) -> AsyncIterator[Marked]:
        """Store what is recorded by the moment at which ``mark`` is called, and nothing more inside.

        Raises:
            StorageUnavailable: nothing is lost, and the next flush tries again.
        """
        async with self._flushing:
            self._close_segment()
            marked = mark()
            for path in self._segments_of(self._run):
                if path != self._segment_path:  # one begun by a record while we wait for storage
                    stored = await self._store(path)  # others record meanwhile: so not in one line
                    self.waiting -= stored
            yield marked

    async def start(self) -> None:
        """Enter the spool, store what processes that ended left in it, and begin the background task.

        Raises:
            SpoolUnavailable: it cannot be used.
        """
        self._enter_directory()
        try:
            await self.adopt()
        except StorageUnavailable as error:
            self._defer(error)
        self._task = asyncio.create_task(self._run_in_background(), name=f"{self._name} spool")

    async def stop(self) -> None:
        """Store what is left. What storage does not take stays for the next start."""
        if self._task is not None:
            self._stopping = True
            self._due.set()
            await self._task
            self._task = None
        self._close_segment()
        if self._lock is not None:
            if not self._segments_of(self._run):
                self._lock_path(self._run).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _run_in_background(self) -> None:
        pause = self._pace.every_s
        while not self._stopping:
            await self._wait(pause)
            pause = await self._try_flush()
        await self._try_flush()

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._due.wait()
        except TimeoutError:
            return

    async def _try_flush(self) -> float:
        """Flush; returns how long to wait before the next."""
        if not self._stopping:
            self._due.clear()
        try:
            await self.flush()
        except (StorageUnavailable, OSError) as error:
            self._defer(error)
            return RETRY_S
        if self._deferred:
            log.info("%s that waited is stored", self._name, extra={"event": f"{self._name}.caught_up"})
            self._deferred = False
        return self._pace.every_s

    def _defer(self, error: Exception) -> None:
        """Say it once an outage, not each time that is tried."""
        if not self._deferred:
            fields = {"event": f"{self._name}.deferred", "error": str(error)}
            log.warning("storage takes no %s", self._name, extra=fields)
            self._deferred = True

    async def _store(self, path: Path) -> int:
        """Move a file into storage; returns how many records were in it."""
        records, damaged = await asyncio.to_thread(self._read_segment, path)
        for start in range(0, len(records), self._pace.at_once):
            batch = records[start : start + self._pace.at_once]
            damaged = not await self._add(f"{path.stem}.{start}", batch) or damaged
        if damaged:
            event = {"event": f"{self._name}.damaged", "file": path.name}
            log.error("lines of %s cannot be stored", self._name, extra=event)
            await asyncio.to_thread(path.rename, path.with_suffix(_DAMAGED_SUFFIX))  # for a person to look at
        else:
            await asyncio.to_thread(path.unlink)
        return len(records)

    async def _add(self, name: str, records: Sequence[Record]) -> bool:
        """Store a batch; what is refused for its content goes in row by row. Says whether all went in.

        Raises:
            StorageUnavailable: it does not answer: none of it is anybody's fault.
        """
        try:
            await self._store_batch(name, records)
        except (SQLAlchemyError, ArithmeticError, ValueError, TypeError):
            if len(records) == 1:
                return False
            return all([await self._add(f"{name}.{at}", [each]) for at, each in enumerate(records)])
        return True

    def _read_segment(self, path: Path) -> tuple[list[Record], bool]:
        """The records of a file, and whether a whole line in it could not be read.

        A last line without its end was torn by the process's death: its write never returned, so whoever
        wrote it never went on, and it is no record.
        """
        *lines, _torn = path.read_bytes().split(b"\n")
        records, damaged = [], False
        for line in lines:
            try:
                records.append(msgspec.json.decode(line, type=self._kind))
            except (msgspec.DecodeError, UnicodeDecodeError):
                damaged = True
        return records, damaged

    def _enter_directory(self) -> None:
        try:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = _locked(self._lock_path(self._run))
        except OSError as error:
            raise SpoolUnavailable(f"{self._directory} cannot be used: {error.strerror}") from error

    async def adopt(self) -> None:
        """Store the files of every run whose lock nobody holds any more: of processes that are dead.

        Raises:
            StorageUnavailable: nothing is lost, and the next call tries again.
        """
        for run in sorted({path.name.partition("-")[0] for path in self._segments_of("*")} - {self._run}):
            lock = _locked(self._lock_path(run))
            if lock is None:
                continue  # that process lives: they are its own
            try:
                for path in self._segments_of(run):
                    await self._store(path)
                self._lock_path(run).unlink(missing_ok=True)
            finally:
                os.close(lock)

    def _segments_of(self, run: str) -> list[Path]:
        return sorted(self._directory.glob(f"{run}-*{_SEGMENT_SUFFIX}"))

    def _lock_path(self, run: str) -> Path:
        return self._directory / f"{run}{_LOCK_SUFFIX}"

    def _open_segment(self) -> int:
        self._sequence += 1
        path = self._directory / f"{self._run}-{self._sequence:010d}{_SEGMENT_SUFFIX}"
        self._segment = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._segment_path, self._in_segment = path, 0
        return self._segment

    def _close_segment(self) -> None:
        if self._segment is not None:
            os.close(self._segment)
        self._segment, self._segment_path = None, None


def is_in_use(directory: Path) -> bool:
    """Whether a living process has its records here."""
    for path in directory.glob(f"*{_LOCK_SUFFIX}"):
        lock = _locked(path)
        if lock is None:
            return True
        os.close(lock)
    return False


def _locked(path: Path) -> int | None:
    """Open a file and lock it for as long as it is open; None where another process has."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
