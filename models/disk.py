"""The few operations that change a disk for good, each durable when it returns. Knows nothing of models.

They stand together so that a test can end the world before or after any one of them.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Read at a time when hashing or copying: large enough that the loop costs nothing beside the sha256.
PIECE_BYTES = 1024 * 1024

# What the name of a folder ends with that is being removed.
LEAVINGS = ".removed"

# Told after each piece how many bytes are done so far; may raise to stop the work.
OnBytes = Callable[[int], None]


class Disk:
    """Durable operations on the local file system; all of them block."""

    def sync(self, path: Path) -> None:
        """Make a file's bytes survive a loss of power."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def write(self, path: Path, content: bytes) -> None:
        """Write a small file whole, and sync it. Not atomic: write beside, then `replace`."""
        path.write_bytes(content)
        self.sync(path)

    def replace(self, source: Path, target: Path) -> None:
        """Rename atomically over whatever is there."""
        source.replace(target)
        self.sync(target.parent)

    def unlink(self, path: Path) -> None:
        """Remove a file; that it is gone already is fine."""
        path.unlink(missing_ok=True)
        self.sync(path.parent)

    def sync_tree(self, path: Path) -> None:
        """Sync a file, or a folder with all that is in it."""
        if path.is_dir():
            for below in path.iterdir():
                self.sync_tree(below)
        self.sync(path)

    def remove_folder(self, path: Path) -> None:
        """Remove a folder as one step: what a crash leaves of it has another name, with `LEAVINGS`."""
        beside = path.with_name(path.name + LEAVINGS)
        shutil.rmtree(beside, ignore_errors=True)
        self.replace(path, beside)
        shutil.rmtree(beside, ignore_errors=True)

    def make_folder(self, path: Path) -> None:
        """Create a folder and what leads to it."""
        path.mkdir(parents=True, exist_ok=True)


class FileLock:
    """A lock between processes (and tasks): held while its file is open, by us or by a child that has it.

    The kernel gives it back when its last holder dies, so no lock outlives a crash. The file itself stays:
    removing it would let two holders lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def descriptor(self) -> int:
        """What a child process must inherit to hold the lock as well."""
        if self._descriptor is None:
            raise RuntimeError("the lock is not held")
        return self._descriptor

    def acquire(self, *, wait: bool, shared: bool = False) -> bool:
        """Take the lock, alone or `shared`; without `wait`, return False at once if somebody else has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            os.close(descriptor)
            return False
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Let go; a child that inherited the lock goes on holding it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Wait for the lock and hold it for the block's duration."""
        self.acquire(wait=True)
        try:
            yield
        finally:
            self.release()


def file_digest(path: Path, on_bytes: OnBytes | None = None) -> str:
    """Return a file's sha256 in hex; blocks for as long as reading it takes.

    Args:
        path: The file.
        on_bytes: Told after each piece how many bytes are read so far; may raise to stop.
    """
    digest, done = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            done += len(piece)
            if on_bytes is not None:
                on_bytes(done)
    return digest.hexdigest()


def folder_bytes(folder: Path) -> int:
    """Return the size of all files below a folder; 0 if there is none."""
    return sum(sizes(folder))


def largest_bytes(folder: Path) -> int:
    """Return the size of the largest file below a folder; 0 if there is none."""
    return max(sizes(folder), default=0)


def sizes(folder: Path) -> Iterator[int]:
    """Yield the size of every file below a folder; files may come and go meanwhile."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                yield (Path(parent) / name).stat().st_size
