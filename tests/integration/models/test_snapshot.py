"""Models of several files: from a server that speaks Hugging Face's protocol, into the store as one."""

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from models.catalog import HuggingFaceSource, ModelSpec
from models.download import Progress, pull
from models.errors import DigestMismatch, DiskBudgetExceeded, DownloadFailed, FormatUnsupported
from models.safetensors import read_safetensors_header
from models.store import ModelStore
from tests.integration.models.served import digest_of, files_of

Make = Callable[..., ModelSpec]
MEGABYTE = 2**20


async def test_a_snapshot_comes_down_as_one_folder(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes]
) -> None:
    seen: list[Progress] = []
    stored = await pull(snapshot_spec(), store, on_progress=seen.append)
    assert files_of(stored.path) == snapshot
    assert stored.digest == "sha256:" + digest_of(snapshot)
    total = sum(map(len, snapshot.values()))
    assert stored.size_bytes == total
    assert store.find(snapshot_spec()) == stored
    assert [file.path for file in stored.files] == sorted(snapshot)
    assert read_safetensors_header(stored.path).parameters == 7 * MEGABYTE
    downloading = [progress for progress in seen if progress.phase == "downloading"]
    assert downloading[-1] == Progress(phase="downloading", done_bytes=total, total_bytes=total)
    assert not any((store.root / "partial").iterdir())


async def test_two_ids_with_one_digest_share_a_folder(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    first = await pull(snapshot_spec(), store)
    hub.behaviour.requests.clear()
    second = await pull(snapshot_spec(id="other", sha256=digest_of(snapshot)), store)
    assert second.path == first.path
    assert hub.behaviour.requests == []
    assert store.remove(first.model_id) == 0
    assert store.remove("other") == first.size_bytes
    assert not first.path.exists()


async def test_an_interrupted_snapshot_goes_on_where_each_file_stopped(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    hub.behaviour.gate.after = 2 * MEGABYTE
    held_back = 4 * MEGABYTE + sum(len(content) for content in snapshot.values() if len(content) < MEGABYTE)
    moved = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.phase == "downloading" and progress.done_bytes >= held_back:
            moved.set()

    task = asyncio.create_task(pull(snapshot_spec(), store, on_progress=note))
    await asyncio.wait_for(moved.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.list() == []
    hub.behaviour.gate.opened.set()
    hub.behaviour.requests.clear()
    assert files_of((await pull(snapshot_spec(), store)).path) == snapshot
    begun = [range_ for range_ in hub.behaviour.ranges() if range_ is not None]
    assert len(begun) == 2  # both large files were under way at once
    gotten = [path for method, path, _ in hub.behaviour.requests if method == "GET" and "/resolve/" in path]
    assert not any(path.endswith("config.json") for path in gotten)


async def test_only_the_file_that_is_damaged_comes_again(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    bad = "model-00002-of-00002.safetensors"
    good, hub.behaviour.listing = hub.behaviour.files[bad], json.loads(hub.behaviour.listed())
    hub.behaviour.files[bad] = good[:-4] + b"\1\2\3\4"
    with pytest.raises(DigestMismatch, match=bad):
        await pull(snapshot_spec(), store)
    assert store.list() == []
    hub.behaviour.files[bad] = good
    hub.behaviour.requests.clear()
    assert files_of((await pull(snapshot_spec(), store)).path) == snapshot
    gotten = [path for method, path, _ in hub.behaviour.requests if method == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in gotten] == [bad]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
async def test_small_files_are_held_against_the_list_too(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any, name: str
) -> None:
    hub.behaviour.listing = json.loads(hub.behaviour.listed())
    hub.behaviour.files[name] = hub.behaviour.files[name][:-1] + b" "
    with pytest.raises(DigestMismatch, match=name):
        await pull(snapshot_spec(), store)


async def test_another_snapshot_than_the_catalog_promises_is_refused(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes]
) -> None:
    with pytest.raises(DigestMismatch, match="the catalog says"):
        await pull(snapshot_spec(sha256="0" * 64), store)
    assert store.list() == []
    assert not any((store.root / "partial").iterdir())


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"path": "../config.json"}, "has 0 files"),
        ({"size": -1}, "less than nothing"),
        ({"oid": "zz"}, "without a usable digest"),
        ({"size": "many"}, "cannot be understood"),
    ],
)
async def test_a_list_is_not_believed(
    store: ModelStore,
    snapshot_spec: Make,
    snapshot: dict[str, bytes],
    hub: Any,
    entry: dict[str, Any],
    says: str,
) -> None:
    hub.behaviour.listing = [{"type": "file", "path": "config.json", "size": 5, "oid": "0" * 40, **entry}]
    with pytest.raises(DownloadFailed, match=says):
        await pull(snapshot_spec(), store)
    assert store.list() == []


@pytest.mark.parametrize("path", ["x/../../config.json", "/etc/config.json", "a\\b", "x/./c", "a\nb"])
async def test_no_file_leaves_its_folder(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any, path: str
) -> None:
    hub.behaviour.listing = [{"type": "file", "path": path, "size": 5, "oid": "0" * 40}]
    patterns = ("*", "*/*", "*/*/*", "*/*/*/*")
    source = HuggingFaceSource(repository="owner/repo", files=patterns, revision=hub.behaviour.commit)
    with pytest.raises(DownloadFailed, match=r"no place in a folder|has 0 files"):
        await pull(snapshot_spec(source=source), store)
    assert hub.behaviour.count("HEAD") == 0


async def test_room_is_asked_for_before_the_first_file(
    tmp_path: Path, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    with pytest.raises(DiskBudgetExceeded):
        await pull(snapshot_spec(), ModelStore(tmp_path / "models", budget_bytes=7 * MEGABYTE))
    assert hub.behaviour.count("HEAD") == 0


async def test_no_file_becomes_larger_than_it_was_listed(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    name = "model-00001-of-00002.safetensors"
    hub.behaviour.listing = json.loads(hub.behaviour.listed())
    hub.behaviour.files[name] += bytes(8 * MEGABYTE)
    with pytest.raises(DownloadFailed, match=r"sends more than the \d+ bytes that were to come"):
        await pull(snapshot_spec(), store)
    assert (store.workspace(snapshot_spec()) / "snapshot" / name).stat().st_size == 0
    hub.behaviour.files[name] = snapshot[name]
    assert files_of((await pull(snapshot_spec(), store)).path) == snapshot


async def test_a_file_listed_as_empty_stays_so(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    listing = json.loads(hub.behaviour.listed())
    for entry in listing:
        if entry["path"] == "tokenizer.json":
            entry["size"] = 0
    hub.behaviour.listing = listing
    with pytest.raises(DownloadFailed, match="more than the 0 bytes"):
        await pull(snapshot_spec(), store)


async def test_a_server_that_begins_again_for_ever_is_given_up(
    store: ModelStore, hub_spec: Make, hub: Any
) -> None:
    hub.behaviour.ignore_range = hub.behaviour.always_drops = True
    hub.behaviour.drop_after = 6 * MEGABYTE
    with pytest.raises(DownloadFailed, match="over and over"):
        await pull(hub_spec(), store)
    assert hub.behaviour.count("GET") <= 8


async def test_a_folder_that_is_no_model_is_refused(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Any
) -> None:
    del hub.behaviour.files["config.json"]
    with pytest.raises(FormatUnsupported, match=r"no config\.json"):
        await pull(snapshot_spec(), store)
    assert store.list() == []


async def test_a_split_gguf_is_given_to_the_engine_by_its_first_part(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    names = [f"q4/tiny-0000{number}-of-00002.gguf" for number in (1, 2)]
    hub.behaviour.files = dict.fromkeys(names, weights)
    source = HuggingFaceSource(repository="owner/repo", files=("q4/*.gguf",), revision=hub.behaviour.commit)
    stored = await pull(hub_spec(source=source, size_bytes=None), store)
    assert stored.path.name == "tiny-00001-of-00002.gguf"
    assert stored.path.with_name("tiny-00002-of-00002.gguf").read_bytes() == weights
    assert stored.size_bytes == 2 * len(weights)


async def test_one_file_of_unknown_size_is_still_one_file(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    hub.behaviour.files = {"q4/tiny.gguf": weights, "q8/tiny.gguf": b"other"}
    stored = await pull(hub_spec(size_bytes=None), store)
    assert stored.path.is_file()
    assert (stored.digest, stored.files) == ("sha256:" + hashlib.sha256(weights).hexdigest(), ())


async def test_the_line_is_shared_by_all_files(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes]
) -> None:
    loop, total = asyncio.get_running_loop(), sum(map(len, snapshot.values()))
    began = loop.time()
    await pull(snapshot_spec(), store, bytes_per_s=16 * MEGABYTE)
    assert loop.time() - began >= total / (16 * MEGABYTE)


async def test_a_full_disk_is_said_and_the_next_pull_goes_on(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    target = store.workspace(hub_spec()) / "weights"
    target.symlink_to("/dev/full")  # the kernel's own full disk
    with pytest.raises(DownloadFailed, match="the disk is full") as caught:
        await pull(hub_spec(), store)
    assert "goes on where it stopped" in caught.value.remedy
    assert store.list() == []
    target.unlink()
    assert (await pull(hub_spec(), store)).path.read_bytes() == weights
