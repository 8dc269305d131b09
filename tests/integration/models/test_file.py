import errno
import hashlib
import os
from pathlib import Path

import pytest

from models.catalog import FileSource, ModelSpec
from models.disk import OnBytes
from models.download import Progress, pull
from models.errors import DigestMismatch, DiskBudgetExceeded, DownloadFailed, FormatUnsupported
from models.sources import file as file_source
from models.store import ModelStore


@pytest.fixture
def original(tmp_path: Path, weights: bytes) -> Path:
    path = tmp_path / "own" / "tiny.gguf"
    path.parent.mkdir()
    path.write_bytes(weights)
    return path


def spec_of(path: Path, **changes: object) -> ModelSpec:
    return ModelSpec(
        **{
            "id": "own",
            "name": "Own",
            "source": FileSource(path=str(path)),
            "context_length": 128,
            **changes,
        }  # type: ignore[arg-type]
    )


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the store lay on another file system."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)


async def test_a_file_is_linked_and_takes_no_room(tmp_path: Path, original: Path, weights: bytes) -> None:
    store = ModelStore(tmp_path / "models", budget_bytes=1000)
    stored = await pull(spec_of(original), store)
    assert stored.path.samefile(original)
    assert stored.digest == "sha256:" + hashlib.sha256(weights).hexdigest()
    assert store.find(spec_of(original)) == stored


async def test_a_symlink_is_followed(tmp_path: Path, store: ModelStore, original: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to(original)
    stored = await pull(spec_of(link), store)
    assert not stored.path.is_symlink()
    assert stored.path.samefile(original)


async def test_where_no_link_is_possible_it_is_copied(
    store: ModelStore, original: Path, no_links: None, weights: bytes
) -> None:
    seen: list[Progress] = []
    stored = await pull(spec_of(original), store, on_progress=seen.append)
    assert stored.path.read_bytes() == weights
    assert not stored.path.samefile(original)
    assert store.find(spec_of(original)) == stored
    assert Progress(phase="downloading", done_bytes=len(weights), total_bytes=len(weights)) in seen


@pytest.mark.parametrize("linked", [True, False])
async def test_a_changed_original_is_read_anew(
    store: ModelStore, original: Path, request: pytest.FixtureRequest, *, linked: bool
) -> None:
    if not linked:
        request.getfixturevalue("no_links")
    first = await pull(spec_of(original), store)
    with original.open("r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\1\2\3\4")
    os.utime(original, ns=(1, 1))
    assert store.find(spec_of(original)) is None
    second = await pull(spec_of(original), store)
    assert second.digest != first.digest
    assert second.path.read_bytes() == original.read_bytes()
    assert not first.path.exists()


async def test_the_weights_outlive_the_original(store: ModelStore, original: Path, weights: bytes) -> None:
    stored = await pull(spec_of(original), store)
    original.unlink()
    assert store.find(spec_of(original)) == stored
    assert stored.path.read_bytes() == weights


async def test_removing_a_model_leaves_the_original(
    store: ModelStore, original: Path, weights: bytes
) -> None:
    await pull(spec_of(original), store)
    store.remove("own")
    assert original.read_bytes() == weights


async def test_a_missing_file_is_said_with_what_to_do(tmp_path: Path, store: ModelStore) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(DownloadFailed, match="is not a file here") as caught:
            await pull(spec_of(path), store)
        assert "catalog" in caught.value.remedy


async def test_wrong_bytes_are_refused(store: ModelStore, original: Path, tmp_path: Path) -> None:
    with pytest.raises(DigestMismatch):
        await pull(spec_of(original, sha256="0" * 64), store)
    page = tmp_path / "page.html"
    page.write_text("<html>")
    with pytest.raises(FormatUnsupported):
        await pull(spec_of(page), store)
    assert store.list() == []


async def test_a_copy_counts_against_the_budget(
    tmp_path: Path, original: Path, no_links: None, monkeypatch: pytest.MonkeyPatch, weights: bytes
) -> None:
    room = file_source.Room(kept=len(weights))
    monkeypatch.setattr(file_source.FileFetcher, "room", lambda self, store: room)
    with pytest.raises(DiskBudgetExceeded):
        await pull(spec_of(original), ModelStore(tmp_path / "models", budget_bytes=len(weights) - 1))


async def test_a_file_written_to_while_it_is_read_is_refused(
    store: ModelStore, original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = file_source.file_digest

    def digest(path: Path, tell: OnBytes) -> str:
        found = real(path, tell)
        with original.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(file_source, "file_digest", digest)
    with pytest.raises(DownloadFailed, match="changed while it was read"):
        await pull(spec_of(original), store)
    assert store.list() == []


async def test_a_disk_that_refuses_is_an_error_of_ours(
    tmp_path: Path, original: Path, monkeypatch: pytest.MonkeyPatch, no_links: None
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "weights")

    monkeypatch.setattr(file_source, "_copy", full)
    with pytest.raises(DownloadFailed, match="No space left on device"):
        await pull(spec_of(original), ModelStore(tmp_path / "models"))
