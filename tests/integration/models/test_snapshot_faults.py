"""Pulls of several files that are broken off: by the network, a full disk, kill -9; and two at once."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from models.catalog import ModelSpec
from models.download import Progress, pull
from models.errors import DownloadFailed
from models.store import ModelStore
from tests.integration.models.served import Server, digest_of, files_of

Make = Callable[..., ModelSpec]
Start = Callable[..., subprocess.Popen[str]]
MEGABYTE = 2**20
UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--mount")
ROOT = Path(__file__).parents[3]


def fetched(hub: Server) -> list[str]:
    """The files that were asked for, by name; one comes twice that was asked for twice."""
    gotten = (path for method, path, _ in hub.behaviour.requests if method == "GET" and "/resolve/" in path)
    return sorted(path.rpartition("/")[2] for path in gotten)


def resumed(hub: Server) -> list[int]:
    """From where on the files came that were not begun anew."""
    begun = (value for value in hub.behaviour.ranges() if value is not None)
    return [int(value.removeprefix("bytes=").removesuffix("-")) for value in begun]


def said(process: subprocess.Popen[str]) -> list[list[Any]]:
    output, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in output.splitlines()]


async def test_a_network_that_is_cut_in_the_middle_leaves_what_came(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Server
) -> None:
    gate = hub.behaviour.gate
    gate.after = 2 * MEGABYTE
    held_back = 4 * MEGABYTE + sum(len(content) for content in snapshot.values() if len(content) < MEGABYTE)

    def cut(progress: Progress) -> None:
        if progress.done_bytes >= held_back:
            hub.behaviour.cut = True
            gate.opened.set()

    with pytest.raises(DownloadFailed, match="owner/repo: 5 files") as caught:
        await pull(snapshot_spec(), store, on_progress=cut)
    assert "goes on where it stopped" in caught.value.remedy
    assert store.list() == []
    hub.behaviour.cut = False
    hub.behaviour.requests.clear()
    assert files_of((await pull(snapshot_spec(), store)).path) == snapshot
    assert [start >= 2 * MEGABYTE for start in resumed(hub)] == [True, True]
    assert len(fetched(hub)) == 2


async def test_two_processes_pull_a_snapshot_once(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Server, start_puller: Start
) -> None:
    processes = [start_puller(store, snapshot_spec()) for _ in range(2)]
    outputs = [await asyncio.to_thread(said, process) for process in processes]
    assert [output[-1][:2] for output in outputs] == [["stored", "sha256:" + digest_of(snapshot)]] * 2
    assert fetched(hub) == sorted(snapshot)


async def test_a_process_killed_in_the_middle_leaves_every_file_as_far_as_it_came(
    store: ModelStore, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Server, start_puller: Start
) -> None:
    gate = hub.behaviour.gate
    gate.after = 2 * MEGABYTE
    process = start_puller(store, snapshot_spec())
    assert process.stdout is not None
    while json.loads(await asyncio.to_thread(process.stdout.readline))[1] < 4 * MEGABYTE:
        pass
    clients = psutil.Process(process.pid).children(recursive=True)
    assert clients
    process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, clients, 30)
    assert alive == []
    assert store.list() == []
    gate.opened.set()
    hub.behaviour.requests.clear()
    assert files_of((await pull(snapshot_spec(), store)).path) == snapshot
    assert [start >= 2 * MEGABYTE for start in resumed(hub)] == [True, True]
    assert not any((store.root / "partial").iterdir())


def test_killed_while_it_is_published_a_snapshot_is_whole_or_absent(
    tmp_path: Path, snapshot_spec: Make, snapshot: dict[str, bytes], start_puller: Start
) -> None:
    points = said(start_puller(ModelStore(tmp_path / "0"), snapshot_spec()))[-1][2]
    assert points >= 16
    # Every fifth point by kill -9; all of them are tried in tests/unit/models/test_crash.py.
    stores = {point: ModelStore(tmp_path / str(point)) for point in range(1, points + 1, 5)}
    for point, store in stores.items():
        process = start_puller(store, snapshot_spec(), point)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        stored = store.find(snapshot_spec())
        assert stored is None or files_of(stored.path) == snapshot
        assert [files_of(model.path) for model in store.list()] == ([snapshot] if stored else [])
    for store in stores.values():
        stored = asyncio.run(pull(snapshot_spec(), store))
        assert files_of(stored.path) == snapshot
        store.sweep(now=0.0)
        assert not any((store.root / "partial").iterdir())


def may_mount() -> bool:
    """Whether this machine lets a test have a file system of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not may_mount(), reason="user namespaces are off; sysctl user.max_user_namespaces=1024")
def test_a_disk_that_fills_up_in_the_middle_is_said_and_the_next_pull_goes_on(
    tmp_path: Path, snapshot_spec: Make, snapshot: dict[str, bytes], hub: Server
) -> None:
    hub.behaviour.gate.after = 2 * MEGABYTE
    order = msgspec.json.encode(snapshot_spec()).decode()
    module = "tests.integration.models.small_disk"
    command = [*UNSHARE, sys.executable, "-m", module, str(tmp_path), order]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline()) == ["filled"]
        hub.behaviour.gate.opened.set()
        (failed, why, remedy, published), stored = said(process)
    assert (failed, published) == ("failed", 0)
    assert "the disk is full" in why
    assert "goes on where it stopped" in remedy
    assert stored == ["stored", "sha256:" + digest_of(snapshot)]
    assert process.returncode == 0
    assert len(resumed(hub)) == 2
