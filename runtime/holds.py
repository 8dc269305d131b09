"""Which weights this node has loaded or is loading: a store's disk budget must not take them away.

Owns the locks that say so, to this process and to others that share the store; they end with the process.
"""

import time
from collections.abc import Container

from models.disk import FileLock
from models.store import ModelStore, StoredModel


class Holds:
    """The weights in use, by model and digest: new weights of a model may load while the old ones serve."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._locks: dict[tuple[str, str], FileLock] = {}

    def take(self, stored: StoredModel) -> None:
        """Keep these weights, and note that they are used now. Blocks: call it in a thread.

        Raises:
            models.errors.ModelNotFound: they made room for others meanwhile.
        """
        lock = self._store.hold(stored, time.time())
        if (before := self._locks.pop((stored.model_id, stored.digest), None)) is not None:
            before.release()
        self._locks[stored.model_id, stored.digest] = lock

    def keep_only(self, models: Container[str]) -> None:
        """Let all go that these models do not need."""
        for key in [key for key in list(self._locks) if key[0] not in models]:
            self._locks.pop(key).release()
