"""Where weights lie on this machine: content-addressed, published atomically, shared by processes."""

from dataclasses import dataclass
from pathlib import Path

from models.catalog import ModelSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredModel:
    """Weights that are complete, verified and on the disk.

    Attributes:
        digest: `sha256:` and 64 hex digits.
    """

    model_id: str
    path: Path
    digest: str
    size_bytes: int


class ModelStore:
    """The store under one folder; any number of processes may use it at once."""

    def __init__(self, root: Path, *, budget_bytes: int | None = None) -> None:
        self.root = root
        self.budget_bytes = budget_bytes

    def find(self, spec: ModelSpec) -> StoredModel | None:
        """Return the stored weights of exactly this catalog entry, or None."""
        raise NotImplementedError(spec)

    def list(self) -> list[StoredModel]:
        """Return everything stored, by model id."""
        raise NotImplementedError

    def remove(self, model_id: str) -> int:
        """Forget a model and free what no other model shares; returns the bytes freed.

        Raises:
            ModelNotFound: Nothing is stored under that id.
        """
        raise NotImplementedError(model_id)
