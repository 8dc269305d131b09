"""The node's directories and files: private, written atomically, used by one daemon at a time.

Owns modes, atomic writes and locks. Must not know what a file means.
"""

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.errors import AlreadyRunning, IdentityInvalid

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700
LOCK_NAME = "daemon.lock"


def private_directory(path: Path) -> Path:
    """Make the directory, readable by its owner only; one that is there already loses others' access."""
    path.mkdir(mode=PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    if path.stat().st_mode & 0o077:
        path.chmod(PRIVATE_DIRECTORY)
    return path


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a crash, sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_private(path: Path) -> bytes:
    """Read a file that holds a secret.

    Raises:
        IdentityInvalid: it is not there, or others can read it.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise IdentityInvalid(f"{path} can be read by others: run `chmod 600 {path}`")
        return path.read_bytes()
    except OSError as error:
        raise IdentityInvalid(f"{path} cannot be read: {error.strerror}") from None


def move_private(source: Path, target: Path) -> None:
    """Put a file in another's place, in one step."""
    source.replace(target)
    _sync_directory(target.parent)


@contextmanager
def short_lock(path: Path) -> Iterator[None]:
    """Have the files that this lock stands for to oneself; who comes meanwhile waits. Not for slow work."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def daemon_lock(state_dir: Path) -> Iterator[None]:
    """Hold the right to be the one daemon of this data directory; the kernel frees it when the process dies.

    Raises:
        AlreadyRunning: another process holds it.
    """
    path = private_directory(state_dir) / LOCK_NAME
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        _lock(descriptor, path)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def wait_for_daemon_end(state_dir: Path) -> None:
    """Return once no daemon works on this directory."""
    with short_lock(state_dir / LOCK_NAME):
        pass


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise AlreadyRunning(
            f"a node already runs on {path.parent}{f' (pid {owner})' if owner else ''}; "
            "`porten status` shows it, and PORTEN_DATA_DIR names another directory"
        ) from None


def _sync_directory(directory: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot; the rename is atomic all the same
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
