"""Getting a model onto this machine: one download however many ask, resumable, cancellable, verified.

Owns the order of the steps. Where bytes come from is the sources' business, where they lie the store's.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from models.blocking import in_thread
from models.catalog import ModelSpec
from models.disk import FileLock
from models.errors import DigestMismatch, DownloadFailed
from models.formats import read_gguf_header
from models.progress import Gauge, Phase, Progress, reporting
from models.safetensors import read_safetensors_header
from models.sources import Fetcher, fetcher_for
from models.sources.base import Job, Weights
from models.store import ModelStore, StoredModel
from models.tree import entry_of

__all__ = ["Phase", "Progress", "pull"]

logger = logging.getLogger(__name__)

# The kernel has no way to wait for a file lock without a thread that cannot be cancelled, so we ask again.
LOCK_RETRY_S = 0.2


def _ignore(progress: Progress) -> None:
    del progress


async def pull(
    spec: ModelSpec,
    store: ModelStore,
    *,
    on_progress: Callable[[Progress], None] = _ignore,
    bytes_per_s: float | None = None,
) -> StoredModel:
    """Make sure the model is on the disk and return it; at once if it is there already.

    However many tasks and processes ask, one downloads and the others wait (`queued`). Cancelling ends the
    transfer, and keeps what can be resumed. Progress is told on the event loop, some ten times a second.
    `bytes_per_s` bounds what this pull takes of the line, whatever the source.

    Raises:
        DownloadFailed: The source did not deliver, or the disk refused.
        DigestMismatch: It delivered other bytes than the catalog promises.
        DiskBudgetExceeded: There is no room.
        FormatUnsupported: The weights are not what the entry says, and no digest vouched for them.
    """
    gauge = Gauge(on_progress)
    try:
        async with reporting(gauge):
            stored = await in_thread(lambda _: store.find(spec)) or await _pull_locked(
                spec, store, gauge, bytes_per_s
            )
            await in_thread(lambda _: store.marks.touch(spec.id, time.time()))
            gauge.enter("done", stored.size_bytes, stored.size_bytes)
            return stored
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise DownloadFailed(spec.id, f"{error.strerror or error}{where}") from error


async def _pull_locked(
    spec: ModelSpec, store: ModelStore, gauge: Gauge, bytes_per_s: float | None
) -> StoredModel:
    gauge.enter("queued", spec.size_bytes)
    async with _held(store.lock(spec)) as lock:
        # Somebody else may have finished while we waited.
        if stored := await in_thread(lambda _: store.find(spec)):
            return stored
        if stored := await in_thread(lambda tell: store.adopt(spec, tell), gauge.reach):
            return stored
        job = Job(workspace=store.workspace(spec), gauge=gauge, lock=lock, bytes_per_s=bytes_per_s)
        return await _fetch(spec, store, job)


@asynccontextmanager
async def _held(lock: FileLock) -> AsyncIterator[FileLock]:
    while not lock.acquire(wait=False):  # noqa: ASYNC110 - the holder may be another process: no event to await
        await asyncio.sleep(LOCK_RETRY_S)
    try:
        yield lock
    finally:
        lock.release()


async def _fetch(spec: ModelSpec, store: ModelStore, job: Job) -> StoredModel:
    fetcher = fetcher_for(spec)
    # Room first: what an earlier crash left may be what stands in the way.
    await in_thread(lambda _: store.sweep(time.time()))
    await fetcher.survey(job)
    await in_thread(lambda _: _reserve(spec, store, fetcher))
    logger.info("pull started", extra={"event": "pull_started", "model": spec.id})
    job.gauge.enter("downloading", spec.size_bytes)
    await fetcher.download(job)
    job.gauge.report()
    job.gauge.enter("verifying", spec.size_bytes)
    try:
        weights = await fetcher.verify(job)
        stored = await in_thread(lambda _: _publish(spec, store, weights))
    except DigestMismatch as error:
        # Nothing good can come of going on with bytes that are wrong; of several files, the others are right.
        if error.file is None:
            await in_thread(lambda _: store.discard(spec))
        raise
    await in_thread(lambda _: store.discard(spec))
    logger.info("pull done", extra={"event": "pull_done", "model": spec.id, "digest": stored.digest})
    return stored


def _reserve(spec: ModelSpec, store: ModelStore, fetcher: Fetcher) -> None:
    room = fetcher.room(store.root)
    store.reserve(spec, kept=room.kept, transient=room.transient)


def _publish(spec: ModelSpec, store: ModelStore, weights: Weights) -> StoredModel:
    if spec.sha256 is None:
        _check_format(spec, weights.path / entry_of(spec.format, weights.files))
    return store.publish(
        spec,
        weights.path,
        digest=weights.sha256,
        mtime_ns=weights.mtime_ns,
        files=weights.files,
        in_place=weights.in_place,
    )


def _check_format(spec: ModelSpec, path: Path) -> None:
    """Weights without a promised digest must at least be what the entry calls them."""
    if spec.format == "gguf":
        read_gguf_header(path)
    else:
        read_safetensors_header(path)
