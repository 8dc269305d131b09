"""Engines that are killed, hang or do not start, and what the next request meets."""

import os
import signal
from pathlib import Path

import pytest

from runtime.errors import LoadFailed
from tests.unit.runtime.supervisor.running_node import hold, lease, running


async def test_a_killed_engine_is_noticed_and_the_next_request_reloads(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        async with lease(node) as first:
            (view,) = node.supervisor.snapshot().replicas
            assert view.pid is not None
            os.kill(view.pid, signal.SIGKILL)
            await node.until(lambda: node.model().state == "cold")
        async with lease(node) as second:
            assert second.replica_id != first.replica_id
        assert node.backend.started == ["one", "one"]


async def test_an_engine_that_hangs_is_replaced_once_somebody_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.launcher._CHECK_TIMEOUT_S", 0.1)
    monkeypatch.setattr("runtime.process._TERM_S", 0.1)
    async with running(tmp_path) as node:
        async with lease(node) as held:
            await node.supervisor.examine(held.replica_id)  # a false alarm
        (view,) = node.supervisor.snapshot().replicas
        assert view.pid is not None
        os.kill(view.pid, signal.SIGSTOP)
        await node.supervisor.examine(view.id)
        async with lease(node) as second:
            assert second.replica_id != view.id


async def test_a_failed_start_says_why_and_is_not_repeated_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as node:
        node.backend.failing = True
        with pytest.raises(LoadFailed, match="the weights are rotten") as failed:
            await hold(node)
        assert failed.value.retry_after_s == pytest.approx(5.0, abs=0.5)
        with pytest.raises(LoadFailed):
            await hold(node)
        assert node.backend.started == ["one"]
        assert node.model().phase == "failed"
        assert "rotten" in (node.model().error or "")
        node.backend.failing = False
        await node.supervisor.load("one")  # the owner's own wish ignores the cool-down
        assert node.model().error is None
