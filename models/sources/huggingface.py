"""Weights from Hugging Face, or from a mirror of it (HF_ENDPOINT), fetched by its own client library.

One file of one repository; several are `models.sources.snapshot`'s business.
"""

import re
from pathlib import Path

from models.blocking import in_thread
from models.catalog import HuggingFaceSource, ModelSpec
from models.disk import file_digest
from models.errors import DigestMismatch
from models.sources import huggingface_client
from models.sources.base import Job, Room, Weights
from models.sources.huggingface_child import run_client


class HuggingFaceFetcher:
    """Fetches a `huggingface` source of one file, whose size the entry says."""

    def __init__(self, spec: ModelSpec, source: HuggingFaceSource) -> None:
        self._spec = spec
        self._source = source

    async def survey(self, job: Job) -> None:
        """Nothing to find out."""

    def room(self, _store: Path, /) -> Room:
        """The file itself."""
        return Room(kept=self._spec.size_bytes or 0)

    async def download(self, job: Job) -> None:
        """Run the client; it goes on with what is there, if the server still has the same file."""
        target = job.workspace / "weights"
        job.gauge.total = self._spec.size_bytes
        job.gauge.measure_with(lambda: target.stat().st_size if target.exists() else 0)
        source = self._source
        order = {
            "repository": source.repository,
            "revision": source.revision,
            "files": [
                {
                    "file": source.file,
                    "target": str(target),
                    "version": str(huggingface_client.version_file(target)),
                    "size": self._spec.size_bytes,
                }
            ],
        }
        await run_client(order, job, model_id=self._spec.id, what=f"{source.repository}/{source.file}")

    async def verify(self, job: Job) -> Weights:
        """Hash the file. Hugging Face's ETag of a large file is its sha256: good where the entry has none."""
        target = job.workspace / "weights"
        job.gauge.total = target.stat().st_size
        sha256 = await in_thread(lambda tell: file_digest(target, tell), job.gauge.reach)
        etag = huggingface_client.version_file(target).read_text()
        if self._spec.sha256 is None and re.fullmatch(r"[0-9a-f]{64}", etag) and etag != sha256:
            raise DigestMismatch(self._spec.id, etag, sha256)
        return Weights(path=target, sha256=sha256)
