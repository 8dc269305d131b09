"""A node's daemon by itself, `porten run --local-only`, as a real process on this machine.

Owns its start, its end and its settings: the owner's own settings file is not read. Must not know the Hub, or
what is measured.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from benchmarks.errors import BenchmarkError
from benchmarks.generator.target import Target
from benchmarks.machine.cpu import WatchedTree
from benchmarks.machine.processes import ManagedProcess, ProcessFailed, clean_environment
from benchmarks.stacks.stack import SharedData, command
from runtime.backends.base import EngineOptions

STARTED: Final = r"node started .*local_api=(http://\S+)"
"""The line in which a daemon says where its own API is."""


@dataclass(frozen=True, slots=True)
class LocalNode:
    """A running daemon and where it answers."""

    process: ManagedProcess
    url: str

    def target(self, model: str) -> Target:
        """The model behind this node's own API, which asks for no key."""
        return Target(f"{self.url}/v1", model)

    @property
    def pid(self) -> int:
        """Process id of the daemon."""
        return self.process.pid

    def daemon(self) -> WatchedTree:
        """The daemon alone: an engine under it is what it would be without us."""
        return WatchedTree("daemon", self.pid, children=False)

    def resident_bytes(self) -> int:
        """Memory of the daemon alone, now."""
        return int(psutil.Process(self.pid).memory_info().rss)

    async def engines(self) -> list[psutil.Process]:
        """The processes of its engines that run now."""
        return await asyncio.to_thread(engines_of, self.pid)


def engines_of(pid: int) -> list[psutil.Process]:
    """The processes under a daemon: it starts nothing but engines. Reads the system."""
    return list(psutil.Process(pid).children(recursive=True))


def engine_settings(options: EngineOptions) -> dict[str, str]:
    """The node's settings under which its engines are started with these options."""
    wanted = {
        "PORTEN_CONTEXT_LENGTH": options.context_length,
        "PORTEN_SLOTS": options.slots,
        "PORTEN_THREADS": options.threads,
    }
    return {name: str(value) for name, value in wanted.items() if value is not None}


@asynccontextmanager
async def run_local_node(directory: Path, shared: SharedData, **settings: str) -> AsyncIterator[LocalNode]:
    """Start a daemon that keeps its own files in `directory`; leaving stops it with its engines.

    Raises:
        BenchmarkError: it does not start.
    """
    process = ManagedProcess(
        "the node",
        [command("porten"), "run", "--local-only"],
        log=directory / "node.log",
        environment=_environment(directory, shared, settings),
    )
    async with process:
        try:
            said = await process.wait_for_line(STARTED)
        except ProcessFailed as failed:
            raise BenchmarkError(str(failed)) from failed
        yield LocalNode(process, said[1])


def _environment(directory: Path, shared: SharedData, settings: dict[str, str]) -> dict[str, str]:
    directory.mkdir(parents=True, exist_ok=True)
    nothing_set = directory / "node.toml"
    nothing_set.touch()
    own = {
        "PORTEN_CONFIG": str(nothing_set),
        "PORTEN_DATA_DIR": str(directory / "data"),
        "PORTEN_LOCAL_PORT": "0",
        "PORTEN_YIELD_GPU": "false",
        "PORTEN_YIELD_ON_BATTERY": "false",
        "PORTEN_YIELD_WHEN_HOT": "false",
    }
    return clean_environment(**own | shared.settings() | settings)
