"""Getting a model onto this machine: one download however many ask, resumable, cancellable, verified."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from models.catalog import ModelSpec
from models.store import ModelStore, StoredModel

Phase = Literal["queued", "downloading", "verifying", "done"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far a pull is; bytes. `total_bytes` is None while nobody knows it."""

    phase: Phase
    done_bytes: int
    total_bytes: int | None


def _ignore(progress: Progress) -> None:
    del progress


async def pull(
    spec: ModelSpec, store: ModelStore, *, on_progress: Callable[[Progress], None] = _ignore
) -> StoredModel:
    """Make sure the model is on the disk and return it; at once if it is there already.

    Cancelling ends the transfer and keeps what can be resumed.

    Raises:
        DownloadFailed: The source did not deliver.
        DigestMismatch: It delivered other bytes than the catalog promises.
        DiskBudgetExceeded: There is no room.
    """
    raise NotImplementedError
