"""SIGKILL for each process of a node's tree at every state of its engine: nothing is left, all comes back."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from runtime.control_client import ControlClient
from runtime.process import OWNER_MARK, marked, owner_of

pytestmark = [pytest.mark.engine, pytest.mark.timeout(240)]
MODEL = "smollm2-135m-instruct"
STATES = ["starting", "ready", "streaming", "draining", "stopping"]


def body(tokens: int, *, stream: bool) -> dict[str, object]:
    messages = [{"role": "user", "content": "Tell a long story."}]
    return {
        "model": MODEL, "messages": messages, "max_tokens": tokens, "stream": stream, "ignore_eos": True
    }  # fmt: skip


class Node:
    """A real daemon that may be killed and started again."""

    def __init__(self, porten: Any) -> None:
        self._porten = porten
        self.state_dir: Path = porten.home / "data" / "state"
        self.daemon: Any = None
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self.daemon = await self._porten.run("--local-only")

    async def status(self) -> dict[str, Any]:
        async with ControlClient.connect(self.state_dir) as control:
            return await control.status()

    async def replicas(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.status())["replicas"]
        return found

    @contextlib.asynccontextmanager
    async def http(self) -> AsyncIterator[httpx.AsyncClient]:
        base = (await self.status())["local_api"]
        async with httpx.AsyncClient(base_url=base, trust_env=False, timeout=120) as client:
            yield client

    def processes(self) -> set[psutil.Process]:
        """Whatever was started for an engine and is there."""
        return marked(OWNER_MARK, owner_of(self.state_dir))

    def begin(self, work: Any) -> None:
        """Do something on the side that the kill cuts short."""

        async def cut() -> None:
            with contextlib.suppress(Exception):
                await work

        self.tasks.append(asyncio.create_task(cut()))

    async def ask(self) -> None:
        """Ask until it is answered: after an engine that died a load may be given a rest of seconds."""
        async with self.http() as http, asyncio.timeout(120):
            while (await http.post("/v1/chat/completions", json=body(2, stream=False))).status_code != 200:
                await asyncio.sleep(0.2)

    async def load(self) -> None:
        async with ControlClient.connect(self.state_dir) as control:
            async for _ in control.progress("load", MODEL):
                pass

    async def unload(self) -> None:
        async with ControlClient.connect(self.state_dir) as control:
            await control.unload(MODEL)

    async def stream(self, begun: asyncio.Event) -> None:
        async with (
            self.http() as http,
            http.stream("POST", "/v1/chat/completions", json=body(6000, stream=True)) as answer,
        ):
            async for _ in answer.aiter_lines():
                begun.set()

    async def until(self, state: str) -> None:
        async with asyncio.timeout(60):
            while [replica["state"] for replica in await self.replicas()] != [state]:
                await asyncio.sleep(0.02)

    async def engine(self) -> psutil.Process:
        """The engine's process, as soon as there is one."""
        async with asyncio.timeout(60):
            while not (found := await asyncio.to_thread(self.processes)):
                await asyncio.sleep(0.005)
        (engine,) = found
        return engine

    async def bring_to(self, state: str) -> psutil.Process:
        """The engine, in that state; held by SIGSTOP it neither becomes ready nor ends when asked."""
        if state == "starting":
            self.begin(self.load())
            engine = await self.engine()
            engine.suspend()
        else:
            await self.load()
            engine = await self.engine()
        if state in ("streaming", "draining"):
            begun = asyncio.Event()
            self.begin(self.stream(begun))
            async with asyncio.timeout(60):
                await begun.wait()
        if state == "stopping":
            engine.suspend()
        if state in ("draining", "stopping"):
            self.begin(self.unload())
        await self.until("ready" if state == "streaming" else state)
        return engine


@pytest.fixture
async def node(porten: Any, shared_data: Path) -> AsyncIterator[Node]:
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_MODELS_DIR": str(shared_data / "models"),
        "PORTEN_SLOTS": "2",
        "PORTEN_CONTEXT_LENGTH": "2048",
    }
    node = Node(porten)
    await node.start()
    yield node
    await asyncio.gather(*node.tasks)
    node.daemon.process.send_signal(signal.SIGTERM)
    assert await node.daemon.ended() == 0
    assert await asyncio.to_thread(node.processes) == set()


def ports_of(process: psutil.Process) -> set[int]:
    return {c.laddr.port for c in process.net_connections() if c.status == psutil.CONN_LISTEN}


def listening() -> set[int]:
    return {c.laddr.port for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN}


async def nothing_is_left(engine: psutil.Process, ports: set[int]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, [engine], timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not ports & await asyncio.to_thread(listening)


async def everything_is_back(node: Node) -> None:
    """The next request is answered, by one engine, and no memory is held by those before."""
    await node.ask()
    status = await node.status()
    assert len(status["replicas"]) == 1
    assert [device["memory_held"] for device in status["devices"]] == [0] * len(status["devices"])
    assert len(await asyncio.to_thread(node.processes)) == 1


@pytest.mark.parametrize("state", STATES)
async def test_a_killed_engine_leaves_nothing(node: Node, state: str) -> None:
    engine = await node.bring_to(state)
    ports = ports_of(engine)
    assert bool(ports) == (state != "starting")
    engine.kill()
    await nothing_is_left(engine, ports)
    await everything_is_back(node)


@pytest.mark.parametrize("state", STATES)
async def test_a_killed_daemon_leaves_nothing(node: Node, state: str) -> None:
    engine = await node.bring_to(state)
    ports = ports_of(engine)
    node.daemon.process.kill()
    await node.daemon.ended()
    await nothing_is_left(engine, ports)
    await node.start()
    await everything_is_back(node)


def guardians_of(node: Node) -> set[psutil.Process]:
    """The processes that hold the other end of a pipe of the daemon's, and are not its children."""
    pipes, found = set(), set()
    for path in Path(f"/proc/{node.daemon.process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            pipes.add(str(path.readlink()))
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            held = str(Path(f"/proc/{process.pid}/fd/0").readlink())
            if held in pipes and "guardian.py" in str(process.cmdline()):
                found.add(process)
    return found


async def guardian_of(node: Node, besides: psutil.Process | None = None) -> psutil.Process:
    """Its guardian, once there is one, and only one."""
    async with asyncio.timeout(60):
        while len(found := await asyncio.to_thread(guardians_of, node) - {besides}) != 1:
            await asyncio.sleep(0.1)
    return found.pop()


async def test_a_killed_guardian_is_replaced_and_goes_with_its_node(node: Node) -> None:
    first = await guardian_of(node)
    first.kill()
    second = await guardian_of(node, besides=first)
    node.daemon.process.kill()
    await node.daemon.ended()
    _, alive = await asyncio.to_thread(psutil.wait_procs, [second], timeout=10)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    await node.start()


ROGUE = """
import os, runpy, sys, time
if os.fork() == 0:  # what gets away: twice forked, in a session of its own, holding nothing of ours
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    time.sleep(600)
os.wait()
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


@pytest.fixture
def rogue_engines(shared_data: Path, tmp_path: Path) -> Path:
    """The real engine behind a python that lets a process get away before it becomes the engine."""
    real = shared_data / "engines" / "xllamacpp"
    environment = tmp_path / "engines" / "xllamacpp"
    (environment / "bin").mkdir(parents=True)
    for entry in real.iterdir():
        if entry.name != "bin":
            (environment / entry.name).symlink_to(entry)
    rogue = environment / "bin" / "rogue.py"
    rogue.write_text(ROGUE.format(python=str(real / "bin" / "python")))
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec {real / "bin" / "python"} {rogue} "$@"\n')
    python.chmod(0o755)
    return tmp_path / "engines"


@pytest.mark.parametrize("victim", ["the daemon", "the engine", "nobody"])
async def test_an_engine_that_forks_twice_and_leaves_its_session_is_found(
    porten: Any, rogue_engines: Path, shared_data: Path, victim: str
) -> None:
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(rogue_engines),
        "PORTEN_MODELS_DIR": str(shared_data / "models"),
        "PORTEN_SLOTS": "1",
        "PORTEN_CONTEXT_LENGTH": "512",
    }
    node = Node(porten)
    await node.start()
    await node.ask()
    (replica,) = await node.replicas()
    away, engine = sorted(node.processes(), key=lambda process: process.pid == replica["pid"])
    assert engine.pid == replica["pid"]
    assert os.getsid(away.pid) != engine.pid
    if victim == "nobody":
        await node.unload()
    else:
        os.kill(node.daemon.process.pid if victim == "the daemon" else engine.pid, signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, [away, engine], timeout=20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    if victim != "the daemon":
        await node.ask()
        node.daemon.process.send_signal(signal.SIGTERM)
        assert await node.daemon.ended() == 0
    assert await asyncio.to_thread(node.processes) == set()
