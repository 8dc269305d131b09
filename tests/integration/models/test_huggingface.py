import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from models.catalog import HuggingFaceSource, ModelSpec
from models.download import Progress, pull
from models.errors import DigestMismatch, DownloadFailed, FormatUnsupported
from models.store import ModelStore

Make = Callable[..., ModelSpec]
MEGABYTE = 2**20


async def interrupt(spec: ModelSpec, store: ModelStore, hub: Any, after: int = 3 * MEGABYTE) -> int:
    """Cancel a pull in the middle; returns the bytes it kept."""
    gate = hub.behaviour.gate
    gate.after = after
    moved = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.phase == "downloading" and progress.done_bytes >= MEGABYTE:
            moved.set()

    task = asyncio.create_task(pull(spec, store, on_progress=note))
    await asyncio.wait_for(moved.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    hub.behaviour.requests.clear()
    return (store.workspace(spec) / "weights").stat().st_size


async def test_a_file_comes_down_with_progress(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    seen: list[Progress] = []
    stored = await pull(hub_spec(), store, on_progress=seen.append)
    assert stored.path.read_bytes() == weights
    assert store.find(hub_spec()) == stored
    assert {path.partition("?")[0] for _, path, _ in hub.behaviour.requests} == {
        f"/owner/repo/resolve/{hub.behaviour.commit}/q4/tiny.gguf"
    }
    downloading = [progress.done_bytes for progress in seen if progress.phase == "downloading"]
    assert downloading == sorted(downloading)
    assert downloading[-1] == len(weights)
    assert not any((store.root / "partial").iterdir())


async def test_an_interrupted_download_goes_on_where_it_stopped(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    others = psutil.Process().children()  # of tests before: a database that several share
    have = await interrupt(hub_spec(), store, hub)
    assert have >= MEGABYTE
    assert psutil.Process().children() == others
    stored = await pull(hub_spec(), store)
    assert hub.behaviour.ranges() == [f"bytes={have}-"]
    assert stored.path.read_bytes() == weights


async def test_another_version_is_never_glued_to_the_first_half(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    await interrupt(hub_spec(), store, hub)
    other = weights[:-4] + b"\1\2\3\4"
    hub.behaviour.content, hub.behaviour.etag = other, hashlib.sha256(other).hexdigest()
    stored = await pull(hub_spec(), store)
    assert hub.behaviour.ranges() == [None]
    assert stored.path.read_bytes() == other


async def test_a_server_without_ranges_sends_it_all_again(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    await interrupt(hub_spec(), store, hub)
    hub.behaviour.ignore_range = True
    stored = await pull(hub_spec(), store)
    assert stored.path.read_bytes() == weights


async def test_a_dropped_connection_is_picked_up_again(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    hub.behaviour.drop_after = 2 * MEGABYTE
    stored = await pull(hub_spec(), store)
    assert stored.path.read_bytes() == weights
    assert len(hub.behaviour.ranges()) == 2


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (404, "RepoNotFound", "no such repository"),
        (404, "RevisionNotFound", "no such revision"),
        (404, "EntryNotFound", "no such file"),
        (403, "GatedRepo", "gated"),
        (403, "", "answered 403"),
        (500, "", "answered 500"),
    ],
)
async def test_refusals_are_explained(
    store: ModelStore, hub_spec: Make, hub: Any, status: int, code: str, says: str
) -> None:
    hub.behaviour.status, hub.behaviour.error_code = status, code
    with pytest.raises(DownloadFailed, match=says) as caught:
        await pull(hub_spec(), store)
    assert "owner/repo/q4/tiny.gguf" in str(caught.value)
    assert caught.value.remedy


async def test_an_unreachable_server_is_explained(
    store: ModelStore, hub_spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed, match="cannot be reached") as caught:
        await pull(hub_spec(), store)
    assert "HF_ENDPOINT" in caught.value.remedy


async def test_offline_mode_is_obeyed(
    store: ModelStore, hub_spec: Make, hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DownloadFailed, match="HF_HUB_OFFLINE"):
        await pull(hub_spec(), store)
    assert hub.behaviour.requests == []


async def test_the_pinned_commit_must_be_the_one_served(store: ModelStore, hub_spec: Make, hub: Any) -> None:
    hub.behaviour.commit = "d" * 40
    with pytest.raises(DownloadFailed, match="the server has commit dddd"):
        await pull(hub_spec(), store)


async def test_an_etag_that_is_a_sha256_is_held_against_the_bytes(
    store: ModelStore, hub_spec: Make, hub: Any
) -> None:
    hub.behaviour.etag = "0" * 64
    with pytest.raises(DigestMismatch):
        await pull(hub_spec(), store)
    assert not any((store.root / "partial").iterdir())


async def test_bytes_that_are_no_gguf_file_are_refused(store: ModelStore, hub_spec: Make, hub: Any) -> None:
    hub.behaviour.content, hub.behaviour.etag = b"<html>sign in</html>", "page"
    with pytest.raises(FormatUnsupported):
        await pull(hub_spec(), store)
    assert store.list() == []


async def test_the_token_goes_to_the_hub_and_not_to_the_cdn(
    store: ModelStore, hub_spec: Make, hub: Any, start_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cdn = start_server()
    hub.behaviour.location = cdn.url.replace("127.0.0.1", "localhost")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert await pull(hub_spec(), store)
    assert all(headers["authorization"] == "Bearer hf_secret" for _, _, headers in hub.behaviour.requests)
    assert cdn.behaviour.count("GET") == 1
    assert all("authorization" not in headers for _, _, headers in cdn.behaviour.requests)


async def test_a_moving_revision_needs_a_digest_and_then_works(
    store: ModelStore, hub_spec: Make, hub: Any, weights: bytes
) -> None:
    source = HuggingFaceSource(repository="owner/repo", file="tiny.gguf", revision="main")
    spec = hub_spec(source=source, sha256=hashlib.sha256(weights).hexdigest())
    assert (await pull(spec, store)).path.read_bytes() == weights
