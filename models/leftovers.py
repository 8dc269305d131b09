"""What crashes left behind: what of it nobody will come back for, and its removal.

Knows the parts of a store; must not know pulls. Everything here blocks.
"""

import shutil
from pathlib import Path

from models.blobs import is_leaving
from models.disk import folder_bytes
from models.holdings import Holdings
from models.references import PREFIX, References
from models.room import Partials

# How long an unfinished download, or a blob whose ref was never written, waits for somebody to go on with it.
ABANDONED_AFTER_S = 7 * 24 * 3600.0


def sweep_finished(holdings: Holdings, damaged: Path, now: float) -> int:
    """Remove weights that no ref names, and damaged ones, once they are old; returns the bytes freed.

    `now` is unix time; whoever calls holds the store's lock.
    """
    kept = {reference.digest for reference in holdings.references}
    freed = 0
    for blob in holdings.blobs:
        unnamed = PREFIX + blob.name not in kept and not holdings.references.has_unreadable()
        if is_leaving(blob) or (unnamed and _is_abandoned(blob, now)):
            freed += holdings.blobs.drop(blob.name)
    for path in sorted(damaged.iterdir()) if damaged.is_dir() else ():
        if _is_abandoned(path, now):
            freed += _delete(path)
    return freed


def sweep_unfinished(references: References, partials: Partials, now: float) -> int:
    """Remove what pulls left that are done, or that nobody went on with; returns the bytes freed."""
    finished = {key for reference in references for key in partials.keys_of(reference)}
    return partials.sweep(lambda folder: folder.name in finished or _is_abandoned(folder, now))


def _is_abandoned(path: Path, now: float) -> bool:
    try:
        touched = max(part.stat().st_mtime for part in (path, *path.rglob("*")))
    except FileNotFoundError:  # somebody works there
        return False
    return now - touched > ABANDONED_AFTER_S


def _delete(path: Path) -> int:
    if path.is_dir():
        size = folder_bytes(path)
        shutil.rmtree(path, ignore_errors=True)
        return size
    size = path.stat().st_size
    path.unlink(missing_ok=True)
    return size
