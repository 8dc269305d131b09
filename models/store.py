"""Where weights lie on this machine: content-addressed, published atomically, shared by processes.

    blobs/sha256/<hex>     complete, verified weights; never written to once they are there
    refs/<model id>.json   which weights a model has; a slash of the id is a comma there
    partial/<key>/         what a pull has so far, and may resume from
    locks/                 <key>.lock is held by whoever pulls; store.lock for the moment of a change

A model is there exactly when its ref is, and a ref is written after its blob is safe on the disk. So a crash
at any moment leaves the model whole or absent, and besides at most a partial folder or an unreferenced blob.
Knows nothing of where weights come from. All methods block: call them from a thread.
"""

import hashlib
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from models.catalog import FileSource, Format, ModelSpec, Source, is_model_id
from models.disk import Disk, FileLock, OnBytes, file_digest, folder_bytes
from models.errors import DigestMismatch, DiskBudgetExceeded, ModelNotFound
from models.references import PREFIX, Reference, References

logger = logging.getLogger(__name__)

# How long an unfinished download, or a blob whose ref was never written, waits for somebody to go on with it.
ABANDONED_AFTER_S = 7 * 24 * 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """Weights that are complete, verified and on the disk.

    Attributes:
        path: Of the weights file. It may vanish when the model is removed; an engine that has it open is not
            disturbed.
        digest: `sha256:` and 64 hex digits.
    """

    model_id: str
    path: Path
    digest: str
    size_bytes: int
    format: Format = "gguf"


class ModelStore:
    """The store under one folder; any number of processes may use it at once."""

    def __init__(self, root: Path, *, budget_bytes: int | None = None, disk: Disk | None = None) -> None:
        """Name the folder; nothing is touched yet.

        Args:
            root: The store's own folder.
            budget_bytes: What all weights together may take, or None for whatever the disk has.
            disk: How changes reach the disk.
        """
        self.root = root
        self.budget_bytes = budget_bytes
        self._disk = disk or Disk()
        self._references = References(root / "refs", self._disk)
        self._lock = root / "locks" / "store.lock"

    def find(self, spec: ModelSpec) -> StoredModel | None:
        """Return the stored weights of exactly this catalog entry, or None."""
        reference = self._references.read(spec.id)
        if reference is None or not self._answers(reference, spec):
            return None
        return self._stored(reference)

    def list(self) -> list[StoredModel]:
        """Return everything stored, by model id."""
        found = (self._stored(reference) for reference in self._references)
        return sorted((stored for stored in found if stored), key=lambda stored: stored.model_id)

    def publish(
        self, spec: ModelSpec, weights: Path, *, digest: str, mtime_ns: int | None = None
    ) -> StoredModel:
        """Take finished weights over, as one step that either happened or did not.

        Args:
            spec: Whose weights they are.
            weights: A file in this store's own `workspace`; it is moved away.
            digest: Its sha256 in hex, taken from the bytes.
            mtime_ns: Of the original, for weights that came from a file on this disk.

        Raises:
            DigestMismatch: The catalog promises other bytes.
        """
        if spec.sha256 is not None and digest != spec.sha256:
            raise DigestMismatch(spec.id, spec.sha256, digest)
        self._disk.sync(weights)
        reference = Reference.of(spec, digest, weights.stat().st_size, mtime_ns)
        with FileLock(self._lock).held():
            blob = self._blob(reference.digest)
            self._disk.make_folder(blob.parent)
            self._disk.replace(weights, blob)
            self._refer(reference)
        return self._as_stored(reference)

    def adopt(self, spec: ModelSpec, on_bytes: OnBytes | None = None) -> StoredModel | None:
        """Give the model weights that lie here already: of another id, or of a crash before the ref.

        The bytes are read and checked again: a blob without a ref has no witness. None if there are none.
        """
        if spec.sha256 is None or not (blob := self._blob(PREFIX + spec.sha256)).is_file():
            return None
        if file_digest(blob, on_bytes) != spec.sha256:
            logger.warning("damaged blob removed", extra={"event": "blob_damaged", "digest": spec.sha256})
            self._disk.unlink(blob)
            return None
        reference = Reference.of(spec, spec.sha256, blob.stat().st_size)
        with FileLock(self._lock).held():
            if not blob.is_file():
                return None
            self._refer(reference)
        return self._as_stored(reference)

    def remove(self, model_id: str) -> int:
        """Forget a model and free what no other model shares; returns the bytes freed.

        Raises:
            ModelNotFound: Nothing is stored under that id.
        """
        with FileLock(self._lock).held():
            if not is_model_id(model_id) or not self._references.exists(model_id):
                raise ModelNotFound(model_id, "store")
            reference = self._references.read(model_id)
            self._references.unlink(model_id)
            return self._drop_unreferenced(reference.digest) if reference else 0

    def sweep(self, now: float) -> int:
        """Remove what crashes left and nobody came back for; returns the bytes freed. `now` is unix time."""
        with FileLock(self._lock).held():
            references = list(self._references)
            kept = {reference.digest for reference in references}
            freed = 0
            for blob in _files(self.root / "blobs" / "sha256"):
                if PREFIX + blob.name not in kept and _abandoned(blob, now):
                    freed += self._drop_unreferenced(PREFIX + blob.name)
        finished = {key for reference in references for key in _keys(reference)}
        for folder in _folders(self.root / "partial"):
            if folder.name in finished or _abandoned(folder, now):
                freed += self._drop_partial(folder)
        return freed

    def lock(self, spec: ModelSpec) -> FileLock:
        """Return the lock that whoever pulls these weights must hold."""
        return FileLock(self.root / "locks" / f"{_key(spec)}.lock")

    def workspace(self, spec: ModelSpec) -> Path:
        """Return the folder for unfinished work on these weights, made if need be; hold the lock."""
        folder = self.root / "partial" / _key(spec)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard(self, spec: ModelSpec) -> None:
        """Throw the unfinished work away; hold the lock."""
        shutil.rmtree(self.root / "partial" / _key(spec), ignore_errors=True)

    def reserve(self, spec: ModelSpec, *, kept: int, transient: int = 0) -> None:
        """Claim room for a pull, so that two at once cannot both take the last of it; hold the lock.

        Args:
            spec: What is to be pulled.
            kept: Bytes that stay: what counts against the budget.
            transient: Bytes needed beside them until the pull is done.

        Raises:
            DiskBudgetExceeded: There is less room than that.
        """
        folder = self.root / "partial" / _key(spec)
        self._disk.make_folder(self.root)
        with FileLock(self._lock).held():
            if self.budget_bytes is not None:
                left = self.budget_bytes - self._taken(except_for=folder)
                _check_room(spec, kept, left, f"the disk budget is {self.budget_bytes / 1e9:.2f} GB")
            free = shutil.disk_usage(self.root).free + folder_bytes(folder)
            _check_room(spec, kept + transient, free, "the disk is full")
            (self.workspace(spec) / "reserved").write_text(str(kept))

    def _taken(self, *, except_for: Path) -> int:
        """Bytes that count against the budget: weights here, and those on their way."""
        # An imported file that the owner still has under its own name takes no room of ours.
        blobs = (blob.stat() for blob in _files(self.root / "blobs" / "sha256"))
        taken = sum(status.st_size for status in blobs if status.st_nlink == 1)
        partial = (folder for folder in _folders(self.root / "partial") if folder != except_for)
        return taken + sum(max(folder_bytes(folder), self._reserved(folder)) for folder in partial)

    def _reserved(self, folder: Path) -> int:
        """Bytes that a pull still claims; nothing once the process that pulled is gone."""
        lock = FileLock(self.root / "locks" / f"{folder.name}.lock")
        if lock.acquire(wait=False):
            lock.release()
            return 0
        try:
            return int((folder / "reserved").read_text())
        except (FileNotFoundError, ValueError):
            return 0

    def _refer(self, reference: Reference) -> None:
        """Write the ref, then free what the model had before."""
        before = self._references.read(reference.model)
        self._references.write(reference)
        if before is not None and before.digest != reference.digest:
            self._drop_unreferenced(before.digest)

    def _drop_unreferenced(self, digest: str) -> int:
        blob = self._blob(digest)
        if any(reference.digest == digest for reference in self._references) or not blob.is_file():
            return 0
        size = blob.stat().st_size
        self._disk.unlink(blob)
        return size

    def _drop_partial(self, folder: Path) -> int:
        lock = FileLock(self.root / "locks" / f"{folder.name}.lock")
        if not lock.acquire(wait=False):
            return 0
        try:
            size = folder_bytes(folder)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            lock.release()
        return size

    def _answers(self, reference: Reference, spec: ModelSpec) -> bool:
        """Whether what is stored is what the entry, as it stands today, asks for."""
        if spec.sha256 is not None:
            return reference.digest == PREFIX + spec.sha256
        if reference.source != spec.source:
            return False
        return not isinstance(spec.source, FileSource) or _unchanged(spec.source, reference)

    def _stored(self, reference: Reference) -> StoredModel | None:
        """Check the blob as cheaply as can be: whole, and not edited through the owner's own name."""
        try:
            status = self._blob(reference.digest).stat()
        except FileNotFoundError:
            return None
        edited = reference.mtime_ns not in (None, status.st_mtime_ns)
        return None if edited or status.st_size != reference.size_bytes else self._as_stored(reference)

    def _as_stored(self, reference: Reference) -> StoredModel:
        return StoredModel(
            model_id=reference.model,
            path=self._blob(reference.digest),
            digest=reference.digest,
            size_bytes=reference.size_bytes,
            format=reference.format,
        )

    def _blob(self, digest: str) -> Path:
        return self.root / "blobs" / "sha256" / digest.removeprefix(PREFIX)


def _key(spec: ModelSpec) -> str:
    """Name the weights rather than the model: two ids with one source share a download."""
    return _key_of(spec.source, spec.sha256)


def _keys(reference: Reference) -> tuple[str, str]:
    """Return the names an entry for these weights may go by, with a digest and without."""
    sha256 = reference.digest.removeprefix(PREFIX)
    return _key_of(reference.source, sha256), _key_of(reference.source, None)


def _key_of(source: Source, sha256: str | None) -> str:
    return hashlib.sha256(msgspec.json.encode([source, sha256])).hexdigest()[:32]


def _unchanged(source: FileSource, reference: Reference) -> bool:
    """Whether the owner's file is still the one taken over; a file that is gone does not unmake our copy."""
    try:
        status = Path(source.path).expanduser().stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) == (reference.size_bytes, reference.mtime_ns)


def _check_room(spec: ModelSpec, needed: int, available: int, reason: str) -> None:
    if needed > available:
        raise DiskBudgetExceeded(spec.id, needed=needed, available=available, reason=reason)


def _abandoned(path: Path, now: float) -> bool:
    touched = max(part.stat().st_mtime for part in (path, *path.glob("*")))
    return now - touched > ABANDONED_AFTER_S


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
