"""What the owner and the node note about stored models: that one is pinned, and when one was used last.

Small files beside the refs: no mark changes what a model is, and losing one costs an order, never weights.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from models.disk import Disk


class Marks:
    """The marks of one store."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    def pin(self, model_id: str) -> None:
        """Keep the model whatever else is pulled; durable."""
        path = self._path(model_id, "pinned")
        self._disk.make_folder(self._folder)
        self._disk.write(path, b"")
        self._disk.sync(self._folder)

    def unpin(self, model_id: str) -> None:
        """Let the model go again."""
        with suppress(FileNotFoundError):
            self._disk.unlink(self._path(model_id, "pinned"))

    def is_pinned(self, model_id: str) -> bool:
        """Whether the owner pinned it."""
        return self._path(model_id, "pinned").exists()

    def touch(self, model_id: str, now: float) -> None:
        """Note that the model was used; `now` is unix time."""
        path = self._path(model_id, "used")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        os.utime(path, (now, now))

    def used(self, model_id: str) -> float:
        """When the model was used last; 0 where nobody noted it."""
        try:
            return self._path(model_id, "used").stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def forget(self, model_id: str) -> None:
        """Remove all marks of a model that is no more."""
        for path in self._of(model_id):
            path.unlink(missing_ok=True)

    def _of(self, model_id: str) -> Iterator[Path]:
        return (self._path(model_id, kind) for kind in ("pinned", "used"))

    def _path(self, model_id: str, kind: str) -> Path:
        # As with refs: a comma is in no id.
        return self._folder / f"{model_id.replace('/', ',')}.{kind}"
