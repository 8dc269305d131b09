"""Where weights lie on this machine: content-addressed, published atomically, shared by processes.

    blobs/sha256/<hex>     complete, verified weights: a file or a folder that is never written to again
    refs/<model id>.json   which weights a model has; a slash of the id is a comma there
    marks/                 which models are pinned, and when each was used last
    damaged/<hex>          weights that were found to be damaged
    partial/<key>/         what a pull has so far, and may resume from
    locks/                 <key>.lock is held by whoever pulls; store.lock for the moment of a change

A model is there exactly when its ref is, and a ref is written after its blob is safe on the disk. So a crash
at any moment leaves the model whole or absent, and besides at most a partial folder or an unreferenced blob.
Knows nothing of where weights come from. All methods block: call them from a thread.
"""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models.catalog import FileSource, Format, ModelSpec, is_model_id
from models.disk import Disk, FileLock, OnBytes, file_digest
from models.errors import DigestMismatch, ModelNotFound
from models.eviction import Evictable
from models.holdings import Holdings
from models.leftovers import sweep_finished, sweep_unfinished
from models.references import PREFIX, Reference, damaged_files
from models.room import Partials, choose_for
from models.tree import TreeFile, entry_of, hash_tree, is_whole, names_in, tree_digest

__all__ = ["Checked", "ModelStore", "StoredModel"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """Weights that are complete, verified and on the disk.

    Attributes:
        path: What an engine is given: the weights file, the first part of a split one, or the folder. It may
            vanish when the model is removed; an engine that has it open is not disturbed.
        digest: `sha256:` and 64 hex digits; of a folder, see `models.tree`.
        size_bytes: Of all files together.
        files: Of weights that are a folder; nothing for a single file.
        in_place: Whether they lie where their owner has them, and not in the store.
    """

    model_id: str
    path: Path
    digest: str
    size_bytes: int
    format: Format = "gguf"
    files: tuple[TreeFile, ...] = ()
    in_place: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What reading all of a model's bytes again found.

    Attributes:
        damaged: The files that are missing or hold other bytes; nothing where all is well.
        set_aside: Where the damaged weights lie now; None for weights that are their owner's.
    """

    model_id: str
    damaged: tuple[str, ...] = ()
    set_aside: Path | None = None


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
        self._holdings = Holdings(root, self._disk)
        self._references, self._blobs = self._holdings.references, self._holdings.blobs
        self._partials = Partials(root)
        self.marks = self._holdings.marks
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
        self,
        spec: ModelSpec,
        weights: Path,
        *,
        digest: str,
        mtime_ns: int | None = None,
        files: tuple[TreeFile, ...] = (),
        in_place: bool = False,
    ) -> StoredModel:
        """Take finished weights over, as one step that either happened or did not.

        Args:
            spec: Whose weights they are.
            weights: A file or a folder in this store's own `workspace`; it is moved away.
            digest: Its sha256 in hex, taken from the bytes.
            mtime_ns: Of the original, for a file that came from this disk.
            files: All files of a folder.
            in_place: The weights are their owner's: they stay where they are.

        Raises:
            DigestMismatch: The catalog promises other bytes.
        """
        if spec.sha256 is not None and digest != spec.sha256:
            raise DigestMismatch(spec.id, spec.sha256, digest)
        if not in_place:
            self._disk.sync_tree(weights)
        size = sum(file.size_bytes for file in files) if files else weights.stat().st_size
        location = str(weights) if in_place else None
        reference = Reference.of(spec, digest, size, mtime_ns=mtime_ns, files=files, location=location)
        with FileLock(self._lock).held():
            if not in_place:
                self._blobs.put(weights, reference.digest, files)
            self._holdings.refer(reference)
        return self._as_stored(reference)

    def adopt(self, spec: ModelSpec, on_bytes: OnBytes | None = None) -> StoredModel | None:
        """Give the model weights that lie here already: of another id, or of a crash before the ref.

        The bytes are read and checked again: a blob without a ref has no witness. None if there are none.
        """
        if spec.sha256 is None or not (blob := self._blobs.path(spec.sha256)).exists():
            return None
        files = hash_tree(blob, names_in(blob), on_bytes) if blob.is_dir() else ()
        found = tree_digest(files) if blob.is_dir() else file_digest(blob, on_bytes)
        if found != spec.sha256:
            logger.warning("damaged blob removed", extra={"event": "blob_damaged", "digest": spec.sha256})
            self._blobs.drop(spec.sha256)
            return None
        size = sum(file.size_bytes for file in files) if files else blob.stat().st_size
        reference = Reference.of(spec, spec.sha256, size, files=files)
        with FileLock(self._lock).held():
            if not blob.exists():
                return None
            self._holdings.refer(reference)
        return self._as_stored(reference)

    def pin(self, model_id: str) -> None:
        """Keep the model whatever else is pulled; nothing is making room while this is noted."""
        with FileLock(self._lock).held():
            self.marks.pin(model_id)

    def check(self, model_id: str, on_bytes: OnBytes | None = None) -> Checked:
        """Read all of a model's bytes again. Damaged weights are set aside: no model has them any more.

        Raises:
            ModelNotFound: Nothing is stored under that id.
            WeightsUnreadable: They cannot be read, which says nothing about them; nothing was changed.
        """
        reference = self._references.read(model_id) if is_model_id(model_id) else None
        if reference is None:
            raise ModelNotFound(model_id, "store")
        if not (damaged := damaged_files(self._holdings.place(reference), reference, on_bytes)):
            return Checked(model_id=model_id)
        logger.warning("damaged weights", extra={"event": "weights_damaged", "model": model_id})
        with FileLock(self._lock).held():
            if self._references.read(model_id) != reference:  # a pull replaced them, and verified its own
                return Checked(model_id=model_id)
            aside = self._holdings.set_aside(reference)
        return Checked(model_id=model_id, damaged=damaged, set_aside=aside)

    def hold(self, stored: StoredModel, now: float) -> FileLock:
        """Note a use (`now`: unix time), and keep the weights from making room for others.

        They are kept until the lock is released, or this process ends.

        Raises:
            ModelNotFound: They went meanwhile.
        """
        lock = self._holdings.use(stored.digest)
        lock.acquire(wait=True, shared=True)
        if not stored.path.exists():
            lock.release()
            raise ModelNotFound(stored.model_id, "store")
        self.marks.touch(stored.model_id, now)
        return lock

    def remove(self, model_id: str) -> int:
        """Forget a model and free what no other model shares; returns the bytes freed.

        Raises:
            ModelNotFound: Nothing is stored under that id.
        """
        with FileLock(self._lock).held():
            if not is_model_id(model_id) or not self._references.exists(model_id):
                raise ModelNotFound(model_id, "store")
            return self._holdings.forget(model_id)

    def sweep(self, now: float) -> int:
        """Remove what crashes left and nobody came back for; returns the bytes freed. `now` is unix time."""
        with FileLock(self._lock).held():
            freed = sweep_finished(self._holdings, self.root / "damaged", now)
        return freed + sweep_unfinished(self._holdings.references, self._partials, now)

    def lock(self, spec: ModelSpec) -> FileLock:
        """Return the lock that whoever pulls these weights must hold."""
        return self._partials.lock(self._partials.key(spec))

    def workspace(self, spec: ModelSpec) -> Path:
        """Return the folder for unfinished work on these weights, made if need be; hold the lock."""
        folder = self._partials.folder(spec)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def discard(self, spec: ModelSpec) -> None:
        """Throw the unfinished work away; hold the lock."""
        shutil.rmtree(self._partials.folder(spec), ignore_errors=True)

    def reserve(self, spec: ModelSpec, *, kept: int, transient: int = 0) -> None:
        """Claim room for a pull, so that two at once cannot both take the last of it; hold the lock.

        Where there is a budget, models that nobody pinned or has loaded make room, the one used longest ago
        first.

        Args:
            spec: What is to be pulled.
            kept: Bytes that stay: what counts against the budget.
            transient: Bytes needed beside them until the pull is done.

        Raises:
            DiskBudgetExceeded: There is less room than that, and no more can be made.
        """
        self._disk.make_folder(self.root)
        with FileLock(self._lock).held(), self._holdings.evictable(for_model=spec.id) as evictable:
            victims = self._victims(spec, kept, evictable)
            coming = sum(victim.room for victim in victims)
            self._partials.claim(spec, kept, transient, coming=coming)
            for victim in victims:
                self._holdings.evict(victim.digest)

    def _victims(self, spec: ModelSpec, kept: int, evictable: Sequence[Evictable]) -> Sequence[Evictable]:
        if self.budget_bytes is None:
            return ()
        coming = self._partials.taken(except_for=self._partials.folder(spec))
        left = self.budget_bytes - self._blobs.taken() - coming
        return choose_for(spec.id, kept, left, self.budget_bytes, evictable)

    def _answers(self, reference: Reference, spec: ModelSpec) -> bool:
        """Whether what is stored is what the entry, as it stands today, asks for."""
        if spec.sha256 is not None:
            return reference.digest == PREFIX + spec.sha256
        if reference.source != spec.source:
            return False
        return not isinstance(spec.source, FileSource) or _unchanged(spec.source, reference)

    def _stored(self, reference: Reference) -> StoredModel | None:
        """Check the weights as cheaply as can be: whole, and not edited through the owner's own name."""
        root = self._holdings.place(reference)
        files = reference.files or (
            TreeFile(path="", sha256="", size_bytes=reference.size_bytes, mtime_ns=reference.mtime_ns),
        )
        return self._as_stored(reference) if is_whole(root, files) else None

    def _as_stored(self, reference: Reference) -> StoredModel:
        return StoredModel(
            model_id=reference.model,
            path=self._holdings.place(reference) / entry_of(reference.format, reference.files),
            digest=reference.digest,
            size_bytes=reference.size_bytes,
            format=reference.format,
            files=reference.files,
            in_place=reference.location is not None,
        )


def _unchanged(source: FileSource, reference: Reference) -> bool:
    """Whether the owner's file is still the one taken over; a file that is gone does not unmake our copy."""
    try:
        status = Path(source.path).expanduser().stat()
    except OSError:
        return True
    return (status.st_size, status.st_mtime_ns) == (reference.size_bytes, reference.mtime_ns)
