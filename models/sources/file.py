"""Weights from the node's own disk: hard-linked where possible, else copied.

A hard link takes no room and survives the owner deleting or moving the original; a reference by path would
not. The price is that an edit in place reaches our copy: the store remembers the modification time and takes
such weights for absent, so that the next pull reads them anew.
"""

import os
from pathlib import Path

from models.blocking import in_thread
from models.catalog import FileSource, ModelSpec
from models.disk import PIECE_BYTES, OnBytes, file_digest
from models.errors import DownloadFailed
from models.sources.base import Job, Room, Weights


class FileFetcher:
    """Fetches a `file` source."""

    def __init__(self, spec: ModelSpec, source: FileSource) -> None:
        self._spec = spec
        self._path = source.path

    async def survey(self, job: Job) -> None:
        """Nothing to find out."""

    def room(self, store: Path, /) -> Room:
        """Nothing where the file can be linked; its size on another file system."""
        status = self._original().stat()
        store.mkdir(parents=True, exist_ok=True)
        linkable = status.st_dev == store.stat().st_dev
        return Room(kept=0 if linkable else status.st_size)

    async def download(self, job: Job) -> None:
        """Link the file into the workspace, or copy it."""
        original = self._original()
        job.gauge.total = original.stat().st_size
        await in_thread(lambda tell: _take(original, _target(job), tell), job.gauge.reach)

    async def verify(self, job: Job) -> Weights:
        """Hash what is there, and make sure that nobody wrote to it meanwhile."""
        target = _target(job)
        before = target.stat()
        job.gauge.total = before.st_size
        sha256 = await in_thread(lambda tell: file_digest(target, tell), job.gauge.reach)
        after = target.stat()
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise DownloadFailed(self._spec.id, f"{self._path} changed while it was read", "Try again")
        return Weights(path=target, sha256=sha256, mtime_ns=after.st_mtime_ns)

    def _original(self) -> Path:
        # Resolved, because a link to a symlink (a Hugging Face cache is full of them) would be one itself.
        path = Path(self._path).expanduser().resolve()
        if not path.is_file():
            raise DownloadFailed(
                self._spec.id, f"{path} is not a file here", "Put it there, or correct `path` in the catalog"
            )
        return path


def _target(job: Job) -> Path:
    return job.workspace / "weights"


def _take(original: Path, target: Path, tell: OnBytes) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(original, target)
    except OSError:
        # Another file system, one without hard links, or a file of somebody else's.
        _copy(original, target, tell)


def _copy(original: Path, target: Path, tell: OnBytes) -> None:
    done, status = 0, original.stat()
    with original.open("rb") as source, target.open("wb") as copy:
        while piece := source.read(PIECE_BYTES):
            copy.write(piece)
            done += len(piece)
            tell(done)
    # The time of the original says later whether it is still the file that was copied.
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
