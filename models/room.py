"""Room on the disk: what unfinished pulls have and claim, and whether there is enough for one more.

Owns the folder of unfinished work. Knows neither weights that are finished nor where they come from; whoever
claims room holds the store's lock.
"""

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

from models.catalog import ModelSpec, Source
from models.disk import FileLock, folder_bytes
from models.errors import DiskBudgetExceeded
from models.eviction import Evictable, choose_victims
from models.references import PREFIX, Reference


def choose_for(
    model_id: str, needed: int, left: int, budget: int, evictable: Sequence[Evictable]
) -> Sequence[Evictable]:
    """Return what has to go so that `needed` bytes are within the budget, of which `left` are left.

    Raises:
        DiskBudgetExceeded: It would not do.
    """
    if needed <= left:
        return ()
    victims = choose_victims(needed - left, evictable)
    if victims is None:
        _refuse(model_id, needed, left, f"the disk budget is {budget / 1e9:.2f} GB")
    return victims


class Partials:
    """The unfinished pulls of one store, each in a folder and with a lock of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def key(self, spec: ModelSpec) -> str:
        """Name the weights rather than the model: two ids with one source share a download."""
        return _key_of(spec.source, spec.sha256)

    def keys_of(self, reference: Reference) -> tuple[str, str]:
        """Return the names an entry for these weights may go by, with a digest and without."""
        sha256 = reference.digest.removeprefix(PREFIX)
        return _key_of(reference.source, sha256), _key_of(reference.source, None)

    def folder(self, spec: ModelSpec) -> Path:
        """Where the unfinished work on these weights is; it may not be there yet."""
        return self._root / "partial" / self.key(spec)

    def lock(self, key: str) -> FileLock:
        """The lock that whoever works there holds."""
        return FileLock(self._root / "locks" / f"{key}.lock")

    def claim(self, spec: ModelSpec, kept: int, transient: int, *, coming: int = 0) -> None:
        """Write down what the pull will take, if the disk has it, or will once `coming` bytes are freed.

        Raises:
            DiskBudgetExceeded: It has less.
        """
        folder = self.folder(spec)
        free = shutil.disk_usage(self._root).free + folder_bytes(folder) + coming
        if kept + transient > free:
            _refuse(spec.id, kept + transient, free, "the disk is full")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "reserved").write_text(str(kept))

    def taken(self, *, except_for: Path) -> int:
        """Bytes that the other pulls have, or will."""
        others = (folder for folder in self._folders() if folder != except_for)
        return sum(max(folder_bytes(folder), self._claimed(folder)) for folder in others)

    def sweep(self, unwanted: Callable[[Path], bool]) -> int:
        """Remove the unwanted ones that nobody works on; returns the bytes freed."""
        return sum(self._drop(folder) for folder in self._folders() if unwanted(folder))

    def _claimed(self, folder: Path) -> int:
        """Bytes that a pull still claims; nothing once the process that pulled is gone."""
        lock = self.lock(folder.name)
        if lock.acquire(wait=False):
            lock.release()
            return 0
        try:
            return int((folder / "reserved").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _drop(self, folder: Path) -> int:
        lock = self.lock(folder.name)
        if not lock.acquire(wait=False):
            return 0
        try:
            size = folder_bytes(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
        return size

    def _folders(self) -> list[Path]:
        folder = self._root / "partial"
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _key_of(source: Source, sha256: str | None) -> str:
    return hashlib.sha256(msgspec.json.encode([source, sha256])).hexdigest()[:32]


def _refuse(model_id: str, needed: int, available: int, reason: str) -> NoReturn:
    raise DiskBudgetExceeded(model_id, needed=needed, available=available, reason=reason)
