"""Weights that are used where their owner has them: nothing is copied, linked, changed or removed.

They are hashed once. Later the store only looks at sizes and modification times, and takes weights that were
touched for absent, so that the next pull reads them anew.
"""

import re
import stat
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.blocking import in_thread
from models.catalog import ModelSpec, PathSource
from models.disk import OnBytes, file_digest
from models.errors import DownloadFailed, FormatUnsupported
from models.sources.base import Job, Room, Weights
from models.tree import GGUF_FILES, SAFETENSORS_FILES, TreeFile, hash_tree, matches, tree_digest

_FIRST_PART = re.compile(r"(?P<name>.+)-00001-of-(?P<count>[0-9]{5})\.gguf")


class PathFetcher:
    """Takes a `path` source for what it is."""

    def __init__(self, spec: ModelSpec, source: PathSource) -> None:
        self._spec = spec
        self._path = Path(source.path).expanduser()
        self._parts = _FIRST_PART.fullmatch(self._path.name)

    async def survey(self, job: Job) -> None:
        """Nothing to find out."""

    def room(self, _store: Path, /) -> Room:
        """None."""
        return Room(kept=0)

    async def download(self, job: Job) -> None:
        """See that the weights are there."""
        job.gauge.total = await in_thread(lambda _: sum(path.stat().st_size for path in self._files()))

    async def verify(self, job: Job) -> Weights:
        """Hash what is there, and make sure that nobody wrote to it meanwhile."""
        files = await in_thread(lambda _: self._files())
        before = [_seen(path) for path in files]
        job.gauge.total = sum(size for size, _ in before)
        weights = await in_thread(lambda tell: self._hash(files, tell), job.gauge.reach)
        if before != [_seen(path) for path in files]:
            raise DownloadFailed(self._spec.id, f"{self._path} changed while it was read", "Try again")
        return weights

    def _files(self) -> Sequence[Path]:
        """The weights file, or the files of the folder that an engine reads."""
        if self._parts:
            return self._split(self._parts["name"], int(self._parts["count"]))
        if self._path.is_file():
            return [self._path.resolve()]
        if not self._path.is_dir():
            raise DownloadFailed(
                self._spec.id, f"{self._path} is not here", "Put it there, or correct `path` in the catalog"
            )
        wanted = SAFETENSORS_FILES if self._spec.format == "safetensors" else GGUF_FILES
        found = sorted(path for path in self._path.iterdir() if matches(path.name, wanted))
        for path in found:
            _check_place(self._path, path)
        if not found:
            raise FormatUnsupported(self._path, f"it holds no {self._spec.format} files")
        return found

    def _split(self, name: str, count: int) -> Sequence[Path]:
        """All parts of a GGUF file of several, of which the entry names the first."""
        found = [self._path.with_name(f"{name}-{part:05}-of-{count:05}.gguf") for part in range(1, count + 1)]
        for path in found:
            if not path.exists():
                raise DownloadFailed(self._spec.id, f"{path} is not here", "Bring all parts of the file")
            _check_place(path.parent, path)
        return found

    def _hash(self, files: Sequence[Path], tell: OnBytes) -> Weights:
        if self._path.is_file() and not self._parts:
            sha256, mtime = file_digest(files[0], tell), files[0].stat().st_mtime_ns
            return Weights(path=files[0], sha256=sha256, mtime_ns=mtime, in_place=True)
        folder = self._path.parent if self._parts else self._path
        hashed = hash_tree(folder, [path.name for path in files], tell)
        dated = tuple(_dated(folder, file) for file in hashed)
        return Weights(path=folder.resolve(), sha256=tree_digest(dated), files=dated, in_place=True)


def _dated(folder: Path, file: TreeFile) -> TreeFile:
    return msgspec.structs.replace(file, mtime_ns=(folder / file.path).stat().st_mtime_ns)


def _seen(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _check_place(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of the folder, unless to where Hugging Face's own cache has its files."""
    target, here = path.resolve(), folder.resolve()
    blobs = here.parent.parent / "blobs" if here.parent.name == "snapshots" else here
    if not (target.is_relative_to(here) or target.is_relative_to(blobs)):
        raise FormatUnsupported(folder, f"{path.name} is a link that leads out of the folder")
    if not target.exists() or not stat.S_ISREG(target.stat().st_mode):
        raise FormatUnsupported(folder, f"{path.name} is not a file")
