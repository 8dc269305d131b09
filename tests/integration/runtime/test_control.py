"""The control API over its unix socket: who may open it, what it says, what ends when the client goes."""

import asyncio
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runtime.control import create_app
from runtime.control_client import SOCKET_NAME, ControlClient
from runtime.errors import DaemonUnreachable, LoadFailed, ModelUnknown, RuntimeFault
from runtime.http_server import AppServer
from runtime.listening import listen_unix
from runtime.progress import LoadProgress


class Daemon:
    """A daemon that pulls as the test says."""

    def __init__(self) -> None:
        self.pulling: Callable[[Callable[[LoadProgress], None]], Any] | None = None
        self.unloaded: list[str] = []
        self.leaving = False
        self.stopped = asyncio.Event()
        self.ended = asyncio.Event()

    def describe(self) -> dict[str, Any]:
        return {"pid": 1, "tunnel": {"state": "connected"}}

    async def pull(self, model_id: str, *, on_progress: Any = None) -> None:
        assert self.pulling is not None
        try:
            await self.pulling(on_progress)
        finally:
            self.ended.set()

    load = pull

    async def unload(self, model_id: str) -> None:
        if model_id == "unknown":
            raise ModelUnknown(model_id)
        self.unloaded.append(model_id)

    async def remove(self, model_id: str) -> int:
        return 42

    async def take_up_key(self) -> str:
        return "now"

    def expect_leave(self) -> None:
        self.leaving = True

    def request_stop(self) -> None:
        self.stopped.set()


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture(params=["short", "long"])
async def state_dir(request: pytest.FixtureRequest, tmp_path: Path, daemon: Daemon) -> AsyncIterator[Path]:
    """A state directory with a served socket; a long one does not fit into a socket's address."""
    directory = tmp_path if request.param == "short" else tmp_path / ("d" * 120)
    directory.mkdir(exist_ok=True)
    server = AppServer(create_app(daemon), listen_unix(directory / SOCKET_NAME))
    task = asyncio.create_task(server.serve())
    yield directory
    server.stop(at_once=True)
    await task


async def test_the_owner_alone_may_open_the_socket(state_dir: Path) -> None:
    mode = (state_dir / SOCKET_NAME).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


async def test_status_unload_remove_another_key_leave_and_shutdown(state_dir: Path, daemon: Daemon) -> None:
    async with ControlClient.connect(state_dir) as client:
        assert (await client.status())["tunnel"] == {"state": "connected"}
        await client.unload("family/model:q4")
        assert daemon.unloaded == ["family/model:q4"]
        assert await client.remove("family/model:q4") == 42
        assert await client.take_up_key() == "now"
        with pytest.raises(RuntimeFault, match="'unknown' is not offered"):
            await client.unload("unknown")
        await client.expect_leave()
        assert daemon.leaving
        await client.shutdown()
    assert daemon.stopped.is_set()


async def test_progress_is_told_to_its_end(state_dir: Path, daemon: Daemon) -> None:
    async def pulling(tell: Callable[[LoadProgress], None]) -> None:
        for done in (1, 2):
            tell(LoadProgress("downloading", done, 2))
            await asyncio.sleep(0)

    daemon.pulling = pulling
    async with ControlClient.connect(state_dir) as client:
        steps = [step async for step in client.progress("pull", "m")]
    assert [(step["phase"], step["done_bytes"]) for step in steps] == [("downloading", 1), ("downloading", 2)]


async def test_a_failure_is_told_in_the_daemons_words(state_dir: Path, daemon: Daemon) -> None:
    async def pulling(tell: Callable[[LoadProgress], None]) -> None:
        raise LoadFailed("m", "the disk is full")

    daemon.pulling = pulling
    async with ControlClient.connect(state_dir) as client:
        with pytest.raises(RuntimeFault, match="the disk is full"):
            [step async for step in client.progress("pull", "m")]


async def test_whoever_goes_takes_the_pull_along(state_dir: Path, daemon: Daemon) -> None:
    async def pulling(tell: Callable[[LoadProgress], None]) -> None:
        tell(LoadProgress("downloading", 1, 2))
        await asyncio.Event().wait()

    daemon.pulling = pulling
    async with ControlClient.connect(state_dir) as client:
        steps = client.progress("pull", "m")
        await anext(steps)
        await steps.aclose()
    async with asyncio.timeout(5):
        await daemon.ended.wait()


async def test_a_reader_that_lags_gets_the_newest(state_dir: Path, daemon: Daemon) -> None:
    async def pulling(tell: Callable[[LoadProgress], None]) -> None:
        for done in range(10_000):
            tell(LoadProgress("downloading", done, 10_000))

    daemon.pulling = pulling
    async with ControlClient.connect(state_dir) as client:
        steps = [step async for step in client.progress("pull", "m")]
    assert len(steps) < 100
    assert steps[-1]["done_bytes"] == 9_999


async def test_nobody_there_is_said_so_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="porten run"):
        async with ControlClient.connect(tmp_path) as client:
            await client.status()


async def test_a_socket_left_by_a_dead_daemon_is_nobody(tmp_path: Path) -> None:
    listen_unix(tmp_path / SOCKET_NAME).close()
    async with ControlClient.connect(tmp_path) as client:
        with pytest.raises(DaemonUnreachable, match="porten run"):
            await client.status()
    listen_unix(tmp_path / SOCKET_NAME).close()
