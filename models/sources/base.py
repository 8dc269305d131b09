"""What a pull asks of every source. A source fills a folder of its own; it must not know the store."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from models.disk import FileLock
from models.progress import Gauge
from models.tree import TreeFile


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One pull, as its source sees it.

    Attributes:
        workspace: A folder for this pull alone; what an interrupted pull left there is there again next time.
        bytes_per_s: Most that a transfer may take of the line; None for all there is.
        lock: Held by the pull; a child process that writes into the workspace must hold it too.
    """

    workspace: Path
    gauge: Gauge
    lock: FileLock
    bytes_per_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """Disk space a pull needs, in bytes: what stays, and what is needed beside it until it is done."""

    kept: int
    transient: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """Finished weights in the workspace, with the sha256 (hex) of their bytes.

    Attributes:
        mtime_ns: Of the original, where that is a file on this disk.
        files: All files of weights that are a folder; `sha256` is that of their list then.
        in_place: The weights are their owner's, and stay where they are.
    """

    path: Path
    sha256: str
    mtime_ns: int | None = None
    files: tuple[TreeFile, ...] = ()
    in_place: bool = False


class Fetcher(Protocol):
    """Fetches one model's weights. Cancelling either step leaves no thread and no child process behind."""

    async def survey(self, job: Job) -> None:
        """Find out what `room` and `download` need to know.

        Raises:
            DownloadFailed: With the reason and what to do.
        """
        ...

    def room(self, store: Path, /) -> Room:
        """Say how much space the pull takes where the store is; blocks."""
        ...

    async def download(self, job: Job) -> None:
        """Bring everything needed into the workspace, going on where an earlier attempt stopped.

        Raises:
            DownloadFailed: With the reason and what to do.
        """
        ...

    async def verify(self, job: Job) -> Weights:
        """Make the weights file out of it, reading every byte.

        Raises:
            DownloadFailed: What was downloaded does not hold the weights.
        """
        ...
