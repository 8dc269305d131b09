"""Weights on the disk: fetched without a load, and kept from eviction as long as somebody needs them."""

import asyncio
from pathlib import Path

import pytest

from models.catalog import FileSource, ModelSpec
from models.errors import DiskBudgetExceeded
from runtime.backends.base import Availability
from runtime.errors import EngineUnavailable
from runtime.progress import LoadProgress
from tests.unit.runtime.supervisor.running_node import Node, hold, running


def can_make_room(node: Node) -> bool:
    """Whether a pull that needs the whole budget would get it."""
    try:
        node.store.reserve(
            ModelSpec(id="big", name="", source=FileSource(path="/x"), context_length=1), kept=1000
        )
    except DiskBudgetExceeded:
        return False
    return True


async def test_weights_that_are_loaded_or_being_loaded_make_no_room(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        loading = asyncio.create_task(node.supervisor.load("one"))
        await node.until(lambda: bool(node.engines()))
        (tmp_path / "weights.gguf").unlink()  # the store's link is the only one now, and counts
        assert not can_make_room(node)
        node.open_gate()
        await loading
        assert node.model().state == "ready"
        assert not can_make_room(node)
        assert node.store.marks.used("one") > 0
        await node.supervisor.unload("one")
        assert can_make_room(node)
        assert node.store.list() == []


async def test_a_load_that_is_given_up_lets_its_weights_go(tmp_path: Path) -> None:
    async with running(tmp_path, gate=False) as node:
        waiting = asyncio.create_task(hold(node))
        await node.until(lambda: bool(node.engines()))
        (tmp_path / "weights.gguf").unlink()
        waiting.cancel()
        await node.until(lambda: not node.supervisor.snapshot().replicas)
        assert can_make_room(node)


async def test_a_stopped_node_holds_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        await node.supervisor.load("one")
        (tmp_path / "weights.gguf").unlink()
        assert not can_make_room(node)
    assert can_make_room(node)


async def test_pull_loads_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        seen: list[LoadProgress] = []
        node.backend.state = Availability(ok=False, reason="no engine", remedy="install it")
        await node.supervisor.pull("one", on_progress=seen.append)
        assert node.model().on_disk
        assert node.model().digest
        assert node.backend.started == []
        assert seen
        with pytest.raises(EngineUnavailable, match="install it"):
            await hold(node)
