"""Weights from Hugging Face, or from a mirror of it (HF_ENDPOINT), fetched by its own client library.

One file of one repository for now. A snapshot folder (safetensors and a tokenizer) will be a second kind of
`Weights`: the client downloads one file at a time either way.
"""

import json
import re
from pathlib import Path

from models.blocking import in_thread
from models.catalog import HuggingFaceSource, ModelSpec
from models.disk import file_digest
from models.errors import DigestMismatch, DownloadFailed
from models.sources import huggingface_client
from models.sources.base import Job, Room, Weights
from models.sources.child import Ended, run_python


class HuggingFaceFetcher:
    """Fetches a `huggingface` source."""

    def __init__(self, spec: ModelSpec, source: HuggingFaceSource) -> None:
        self._spec = spec
        self._source = source

    def room(self, _store: Path, /) -> Room:
        """The file itself."""
        return Room(kept=self._spec.size_bytes or 0)

    async def download(self, job: Job) -> None:
        """Run the client; it goes on with what is there, if the server still has the same file."""
        target = job.workspace / "weights"
        job.gauge.total = self._spec.size_bytes
        job.gauge.measure_with(lambda: target.stat().st_size if target.exists() else 0)
        ended = await run_python(
            [str(Path(huggingface_client.__file__)), self._order(target)],
            lock=job.lock,
            extra_environment={"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
            on_line=lambda _: None,
        )
        if ended.code != 0:
            raise self._failure(ended)

    async def verify(self, job: Job) -> Weights:
        """Hash the file. Hugging Face's ETag of a large file is its sha256: good where the entry has none."""
        target = job.workspace / "weights"
        job.gauge.total = target.stat().st_size
        sha256 = await in_thread(lambda tell: file_digest(target, tell), job.gauge.reach)
        etag = huggingface_client.version_file(target).read_text()
        if self._spec.sha256 is None and re.fullmatch(r"[0-9a-f]{64}", etag) and etag != sha256:
            raise DigestMismatch(self._spec.id, etag, sha256)
        return Weights(path=target, sha256=sha256)

    def _order(self, target: Path) -> str:
        return json.dumps(
            {
                "repository": self._source.repository,
                "file": self._source.file,
                "revision": self._source.revision,
                "target": str(target),
            }
        )

    def _failure(self, ended: Ended) -> DownloadFailed:
        answer = _answer(ended)
        said = ended.lines[-1] if ended.lines else f"exit code {ended.code}"
        return DownloadFailed(
            self._spec.id,
            f"{self._source.repository}/{self._source.file}: {answer.get('reason', said)}",
            answer.get("remedy", "Try again: it goes on where it stopped"),
        )


def _answer(ended: Ended) -> dict[str, str]:
    """Return the client's last word, or nothing if it died without one."""
    for line in reversed(ended.lines):
        if line.startswith(huggingface_client.ANSWER):
            return dict(json.loads(line.removeprefix(huggingface_client.ANSWER)))
    return {}
