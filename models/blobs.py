"""The weights in a store: files and folders named after their digest, never written to once they are there.

Owns one folder of the store. Knows neither models nor downloads; whoever changes something holds the lock.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from models.disk import LEAVINGS, Disk, folder_bytes
from models.references import PREFIX
from models.tree import TreeFile, is_whole


class Blobs:
    """The folder `blobs/sha256` of one store."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def path(self, digest: str) -> Path:
        """Where the weights with this digest are, or would be."""
        return self._folder / digest.removeprefix(PREFIX)

    def put(self, weights: Path, digest: str, files: Sequence[TreeFile] = ()) -> Path:
        """Move finished, synced weights here as one step, and return where they are."""
        target = self.path(digest)
        self._disk.make_folder(target.parent)
        if target.is_dir():
            if files and is_whole(target, files):
                return target  # the same bytes, perhaps in use: a folder cannot be replaced as one step
            self._disk.remove_folder(target)
        self._disk.replace(weights, target)
        return target

    def drop(self, digest: str) -> int:
        """Remove weights; returns the bytes freed."""
        blob = self.path(digest)
        if blob.is_dir():
            size = folder_bytes(blob)
            self._disk.remove_folder(blob)
            return size
        if not blob.is_file():
            return 0
        size = blob.stat().st_size
        self._disk.unlink(blob)
        return size

    def set_aside(self, digest: str, target: Path) -> None:
        """Move weights out of the way, where nothing finds them but who looks into them."""
        self._disk.make_folder(target.parent)
        if target.is_dir():
            self._disk.remove_folder(target)
        self._disk.replace(self.path(digest), target)
        os.utime(target)  # kept from now on: who sweeps goes by it
        self._disk.sync(self._folder)

    def room_of(self, digest: str) -> int:
        """Bytes that removing these weights gives back.

        An imported file that the owner still has under its own name takes no room of ours.
        """
        return _own_bytes(self.path(digest))

    def taken(self) -> int:
        """Bytes that all of it takes."""
        return sum(_own_bytes(path) for path in self)

    def __iter__(self) -> Iterator[Path]:
        """All there is, with the leavings of what a crash kept from being removed."""
        return iter(sorted(self._folder.iterdir()) if self._folder.is_dir() else [])


def is_leaving(path: Path) -> bool:
    """Whether a crash kept it from being removed."""
    return path.name.endswith(LEAVINGS)


def _own_bytes(path: Path) -> int:
    if path.is_dir():
        return folder_bytes(path)
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_size if status.st_nlink == 1 else 0
