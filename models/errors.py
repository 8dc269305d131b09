"""What can go wrong with models, as one tree. Knows nothing of servers, HTTP statuses or exit codes.

ModelsError
├── ModelNotFound         no catalog entry, or nothing on disk, under that id
├── CatalogInvalid        a catalog file cannot be read; names the file and the key
├── DownloadFailed        the source could not give the bytes; says what to do
├── DigestMismatch        the bytes are not the ones the catalog promises
├── WeightsUnreadable     the disk does not give stored weights: no word on whether they are sound
├── DiskBudgetExceeded    the model does not fit on the disk, or in the budget set for it
└── FormatUnsupported     a weights file is damaged, or of a kind we cannot read
"""

from pathlib import Path


class ModelsError(Exception):
    """Root of every error this folder raises on purpose."""


class ModelNotFound(ModelsError):
    """No such model in the catalog or on the disk."""

    def __init__(self, model_id: str, where: str = "catalog") -> None:
        super().__init__(f"no model {model_id!r} in the {where}")
        self.model_id = model_id


class CatalogInvalid(ModelsError):
    """A catalog file does not say what a catalog may say."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class DownloadFailed(ModelsError):
    """A source did not deliver; `remedy` is what the owner can do about it, or empty."""

    def __init__(self, model_id: str, reason: str, remedy: str = "") -> None:
        super().__init__(f"cannot get {model_id}: {reason}" + (f". {remedy}" if remedy else ""))
        self.model_id = model_id
        self.reason = reason
        self.remedy = remedy


class WeightsUnreadable(ModelsError):
    """Stored weights cannot be read now; they stay as they are."""

    def __init__(self, model_id: str, reason: str) -> None:
        super().__init__(f"{model_id} cannot be read: {reason}; nothing was changed")


class DigestMismatch(ModelsError):
    """The weights have another digest than the catalog or the source says: never stored, never served.

    `file` is the one file of several that is wrong: the others are kept for the next attempt.
    """

    def __init__(self, model_id: str, expected: str, actual: str, *, file: str | None = None) -> None:
        what, who = ("the weights have", "the catalog") if file is None else (f"{file} has", "the source")
        super().__init__(f"{model_id}: {what} sha256 {actual}, {who} says {expected}")
        self.model_id = model_id
        self.file = file
        self.expected = expected
        self.actual = actual


class DiskBudgetExceeded(ModelsError):
    """Not enough room; all sizes in bytes."""

    def __init__(self, model_id: str, *, needed: int, available: int, reason: str) -> None:
        super().__init__(
            f"{model_id} needs {_megabytes(needed)} on disk but {_megabytes(max(0, available))} are left: "
            f"{reason}. Remove a model (`porten models rm`) or raise the budget"
        )
        self.model_id = model_id
        self.needed = needed
        self.available = available


class FormatUnsupported(ModelsError):
    """A weights file that cannot be understood; `path` says which."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
