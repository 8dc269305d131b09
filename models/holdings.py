"""What a store has: refs, blobs, marks, and which weights are in use, changed together.

Owns what follows from what: a blob goes with its last ref, and weights that an engine has make no room. Knows
neither pulls nor budgets; whoever changes something holds the store's lock.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from models.blobs import Blobs, is_leaving
from models.disk import Disk, FileLock
from models.eviction import Evictable
from models.marks import Marks
from models.references import PREFIX, Reference, References

logger = logging.getLogger(__name__)


class Holdings:
    """The finished weights of the store under `root`."""

    def __init__(self, root: Path, disk: Disk) -> None:
        self.references = References(root / "refs", disk)
        self.blobs = Blobs(root / "blobs" / "sha256", disk)
        self.marks = Marks(root / "marks", disk)
        self._root = root

    def place(self, reference: Reference) -> Path:
        """Where the weights lie: a file or a folder."""
        return Path(reference.location) if reference.location else self.blobs.path(reference.digest)

    def use(self, digest: str) -> FileLock:
        """The lock that whoever has the weights loaded shares, and whoever removes them has alone."""
        return FileLock(self._root / "locks" / f"{digest.removeprefix(PREFIX)}.use")

    def refer(self, reference: Reference) -> None:
        """Write the ref, then free what the model had before."""
        before = self.references.read(reference.model)
        self.references.write(reference)
        if before is not None and before.digest != reference.digest:
            self.drop_unreferenced(before.digest)

    def forget(self, model_id: str) -> int:
        """Remove a model's ref and marks, and what no other model shares; returns the bytes freed."""
        reference = self.references.read(model_id)
        self.references.unlink(model_id)
        self.marks.forget(model_id)
        return self.drop_unreferenced(reference.digest) if reference else 0

    def drop_unreferenced(self, digest: str) -> int:
        """Remove weights that no ref names any more; returns the bytes freed."""
        return 0 if self._sharers(digest) else self.blobs.drop(digest)

    def set_aside(self, reference: Reference) -> Path | None:
        """Take damaged weights from every model that has them; returns where they are now, if here."""
        for other in list(self.references):
            if (other.digest, other.location) == (reference.digest, reference.location):
                self.references.unlink(other.model)
        if reference.location is not None or not self.blobs.path(reference.digest).exists():
            return None
        target = self._root / "damaged" / reference.digest.removeprefix(PREFIX)
        self.blobs.set_aside(reference.digest, target)
        os.utime(target)  # from now on it waits to be looked at, however old it is
        return target

    @contextmanager
    def evictable(self, *, for_model: str) -> Iterator[Sequence[Evictable]]:
        """All weights that may make room: not pinned, not loaded, not the model's own.

        Nobody can begin to use them while the block lasts.
        """
        if self.references.has_unreadable():  # whose weights they name, and whether pinned, is not known
            yield []
            return
        with ExitStack() as unused:
            found = [candidate for blob in self.blobs if (candidate := self._evictable(blob, for_model))]
            yield [candidate for candidate in found if self._is_free(candidate.digest, unused)]

    def evict(self, digest: str) -> None:
        """Remove weights, and every model that has them."""
        for model_id in self._sharers(digest):
            logger.info("model makes room", extra={"event": "model_evicted", "model": model_id})
            self.references.unlink(model_id)
            self.marks.forget(model_id)
        self.blobs.drop(digest)

    def _evictable(self, blob: Path, for_model: str) -> Evictable | None:
        digest = PREFIX + blob.name
        models, room = self._sharers(digest), self.blobs.room_of(digest)
        if is_leaving(blob) or room == 0 or for_model in models or any(map(self.marks.is_pinned, models)):
            return None
        return Evictable(digest=digest, room=room, used=max(map(self.marks.used, models), default=0.0))

    def _is_free(self, digest: str, unused: ExitStack) -> bool:
        lock = self.use(digest)
        if not lock.acquire(wait=False):
            return False
        unused.callback(lock.release)
        return True

    def _sharers(self, digest: str) -> list[str]:
        """The models that have these weights from the store."""
        return [ref.model for ref in self.references if ref.digest == digest and ref.location is None]
