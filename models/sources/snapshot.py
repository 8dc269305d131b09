"""Models of several files from Hugging Face, or a mirror of it.

The repository's list comes first: it says how much room is needed, and each file's digest. The files come
several at a time, each going on where it stopped, and each is held against the digest that the list has.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from models.blocking import in_thread
from models.catalog import HuggingFaceSource, ModelSpec
from models.disk import PIECE_BYTES, OnBytes, folder_bytes
from models.errors import DigestMismatch, DownloadFailed
from models.sources.base import Job, Room, Weights
from models.sources.huggingface_child import run_client
from models.tree import SAFETENSORS_FILES, TreeFile, hash_tree, is_inside, matches, names_in, tree_digest

MOST_FILES = 10_000


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A file as the repository lists it: large ones with their sha256, small ones with git's own digest."""

    path: str
    size: int
    sha256: str | None = None
    blob_id: str = ""


class SnapshotFetcher:
    """Fetches a `huggingface` source of several files, or of one whose size the entry does not say."""

    def __init__(self, spec: ModelSpec, source: HuggingFaceSource) -> None:
        self._spec = spec
        self._source = source
        self._listed: Sequence[Listed] = ()

    async def survey(self, job: Job) -> None:
        """Have the repository list its files, and choose among them."""
        target = job.workspace / "listing"
        await self._run(job, {"list": True, "target": str(target)}, "its files")
        try:
            found = msgspec.json.decode(await in_thread(lambda _: target.read_bytes()), type=list[Listed])
        except msgspec.MsgspecError as error:
            raise self._refused("the server's list of files cannot be understood") from error
        self._listed = self._chosen(found)

    def room(self, _store: Path, /) -> Room:
        """All files together."""
        return Room(kept=sum(file.size for file in self._listed))

    async def download(self, job: Job) -> None:
        """Run the client; it goes on with the files that are there, each in the version it began with."""
        folder, versions = job.workspace / "snapshot", job.workspace / "versions"
        job.gauge.total = sum(file.size for file in self._listed)
        await in_thread(lambda _: self._prepare(folder, versions))
        job.gauge.measure_with(lambda: folder_bytes(folder))
        order = {
            "files": [
                {
                    "file": file.path,
                    "target": str(folder / file.path),
                    "version": str(versions / _name(file.path)),
                    "size": file.size,
                }
                for file in self._listed
            ],
        }
        path = job.workspace / "order"
        await in_thread(lambda _: path.write_text(json.dumps(order)))
        await self._run(job, {"order": str(path)}, f"{len(self._listed)} files")

    async def verify(self, job: Job) -> Weights:
        """Hash every file and hold it against the list."""
        folder = job.workspace / "snapshot"
        job.gauge.total = sum(file.size for file in self._listed)
        names = [file.path for file in self._listed]
        files = await in_thread(lambda tell: self._hash(folder, names, tell), job.gauge.reach)
        if self._source.file is not None:
            return Weights(path=folder / files[0].path, sha256=files[0].sha256)
        return Weights(path=folder, sha256=tree_digest(files), files=files)

    def _hash(self, folder: Path, names: Sequence[str], tell: OnBytes) -> tuple[TreeFile, ...]:
        files = hash_tree(folder, names, tell)
        for listed, file in zip(sorted(self._listed, key=lambda file: file.path), files, strict=True):
            actual = file.sha256 if listed.sha256 else _git_digest(folder / file.path, file.size_bytes)
            expected = listed.sha256 or listed.blob_id
            if expected != actual:
                # The others are kept; this one comes anew.
                (folder / file.path).unlink()
                raise DigestMismatch(self._spec.id, expected, actual, file=file.path)
        return files

    def _prepare(self, folder: Path, versions: Path) -> None:
        """Make the folders, and remove what an earlier list had and this one has not."""
        folder.mkdir(exist_ok=True)
        versions.mkdir(exist_ok=True)
        wanted = {file.path for file in self._listed}
        for name in names_in(folder):
            if name not in wanted:
                (folder / name).unlink()
        for name in wanted:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)

    def _chosen(self, found: Sequence[Listed]) -> Sequence[Listed]:
        source = self._source
        wanted = source.files or SAFETENSORS_FILES
        if source.file is not None:
            chosen = [file for file in found if file.path == source.file]
        else:
            chosen = [file for file in found if matches(file.path, wanted)]
        if not chosen or len(chosen) > MOST_FILES:
            what = source.file or ", ".join(source.files) or "safetensors"
            raise self._refused(f"the repository has {len(chosen)} files of {what}")
        for file in chosen:
            if fault := _fault(file):
                raise self._refused(f"the server lists {file.path[:100]!r}, {fault}")
        if len({file.path for file in chosen}) < len(chosen):
            raise self._refused("the server lists a file twice")
        return chosen

    async def _run(self, job: Job, order: dict[str, object], what: str) -> None:
        source = self._source
        place = {"repository": source.repository, "revision": source.revision}
        await run_client({**place, **order}, job, model_id=self._spec.id, what=f"{source.repository}: {what}")

    def _refused(self, reason: str) -> DownloadFailed:
        remedy = "Check `files` and `revision` in the catalog"
        return DownloadFailed(self._spec.id, f"{self._source.repository}: {reason}", remedy)


def _fault(file: Listed) -> str | None:
    """What about a listed file must not be believed."""
    if not is_inside(file.path):
        return "which is no place in a folder"
    if file.size < 0:
        return "of less than nothing"
    digest, length = (file.sha256, 64) if file.sha256 else (file.blob_id, 40)
    return None if re.fullmatch(rf"[0-9a-f]{{{length}}}", digest) else "without a usable digest"


def _name(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()


def _git_digest(path: Path, size: int) -> str:
    """Return what git calls these bytes: all that the list has of a small file."""
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()
