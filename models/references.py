"""Which weights each model has: a small file per model, replaced whole. Knows neither blobs nor downloads."""

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec

from models.catalog import Format, ModelSpec, Source
from models.disk import Disk, OnBytes, file_digest
from models.errors import WeightsUnreadable
from models.tree import TreeFile, after

logger = logging.getLogger(__name__)

PREFIX = "sha256:"


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """What a ref file says.

    Attributes:
        digest: `sha256:` and 64 hex digits.
        source: Where the weights came from; they answer for an entry without a digest only if it agrees.
        mtime_ns: The original's, where the weights came from a file on this disk.
        files: Of weights that are a folder; nothing for a single file.
        location: Where the owner has weights that are used in place; None for those in the store.
    """

    model: str
    digest: str
    size_bytes: int
    format: Format
    source: Source
    mtime_ns: int | None = None
    files: tuple[TreeFile, ...] = ()
    location: str | None = None

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        sha256: str,
        size_bytes: int,
        *,
        mtime_ns: int | None = None,
        files: tuple[TreeFile, ...] = (),
        location: str | None = None,
    ) -> "Reference":
        """Say that `spec`'s weights are the ones with this sha256 (hex)."""
        return cls(
            model=spec.id,
            digest=PREFIX + sha256,
            size_bytes=size_bytes,
            format=spec.format,
            source=spec.source,
            mtime_ns=mtime_ns,
            files=files,
            location=location,
        )


def damaged_files(root: Path, reference: Reference, tell: OnBytes | None = None) -> tuple[str, ...]:
    """Read all of the weights at `root` again; returns the files that are missing or hold other bytes.

    Raises:
        WeightsUnreadable: The disk or the owner's permissions do not let them be read.
    """
    found, done = [], 0
    whole = TreeFile(path="", sha256=reference.digest.removeprefix(PREFIX), size_bytes=reference.size_bytes)
    for file in reference.files or (whole,):
        try:
            damaged = file_digest(root / file.path, after(done, tell)) != file.sha256
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            damaged = True
        except OSError as error:
            raise WeightsUnreadable(reference.model, error.strerror or str(error)) from error
        if damaged:
            found.append(file.path or root.name)
        done += file.size_bytes
    return tuple(found)


class References:
    """The ref files of one store; whoever writes holds the store's lock."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def read(self, model_id: str) -> Reference | None:
        """Return the model's ref; None if there is none, or none that can be understood."""
        return self._decode(self._path(model_id))

    def exists(self, model_id: str) -> bool:
        """Whether there is a ref file, understood or not."""
        return self._path(model_id).is_file()

    def write(self, reference: Reference) -> None:
        """Put the ref in place, atomically."""
        path = self._path(reference.model)
        beside = path.with_suffix(".tmp")
        self._disk.make_folder(self._folder)
        self._disk.write(beside, msgspec.json.encode(reference))
        self._disk.replace(beside, path)

    def unlink(self, model_id: str) -> None:
        """Remove the ref."""
        self._disk.unlink(self._path(model_id))

    def __iter__(self) -> Iterator[Reference]:
        return (found for path in self._paths() if (found := self._decode(path)) is not None)

    def has_unreadable(self) -> bool:
        """Whether a ref cannot be understood, as one of a later release: what it keeps is not known then."""
        return any(self._decode(path) is None for path in self._paths())

    def _paths(self) -> list[Path]:
        return sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []

    def _decode(self, path: Path) -> Reference | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Reference)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            logger.warning("unreadable ref ignored", extra={"event": "ref_unreadable", "file": path.name})
            return None

    def _path(self, model_id: str) -> Path:
        # An id never holds a comma, so two ids never share a file, and no id leaves the folder.
        return self._folder / (model_id.replace("/", ",") + ".json")
