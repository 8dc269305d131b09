"""Processes that a benchmark or the demo starts: they end with it, however it ends."""

import asyncio
import sys
from pathlib import Path

import pytest

from benchmarks.machine.processes import ManagedProcess, clean_environment


@pytest.fixture
def sleeper(tmp_path: Path) -> ManagedProcess:
    program = "import time\nprint('here', flush=True)\ntime.sleep(60)"
    argv = [sys.executable, "-c", program]
    return ManagedProcess("sleeper", argv, log=tmp_path / "log", environment=clean_environment())


async def test_who_is_cancelled_while_waiting_for_one_can_still_stop_it(sleeper: ManagedProcess) -> None:
    async with sleeper:
        await sleeper.wait_for_line("here")
        waiting = asyncio.create_task(sleeper.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert sleeper.running
        assert await sleeper.stop() == -15
    assert not sleeper.running
