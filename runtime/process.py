"""One engine process and everything it started: begun in its own session, found by a mark, ended whole.

Owns operating-system processes; must not know models, slots or HTTP.

Three things tie an engine to the node: the node holds the engine's stdin open (its end is the engine's end),
the engine asks the kernel to be killed with its parent, and a mark in its environment lets a later node find
whatever got away. The kernel binds that request to the THREAD that starts the engine: start engines from one
that lives as long as the node.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from runtime.backends.base import LaunchSpec
from runtime.errors import EngineFailed

logger = logging.getLogger(__name__)

OWNER_MARK = "PORTEN_ENGINE_OF"
ENGINE_MARK = "PORTEN_ENGINE"
_TERM_S = 3.0
_KILL_S = 5.0
_LOG_TAIL_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where an engine answers."""

    host: str
    port: int


def owner_of(state_dir: Path) -> str:
    """The mark of the node with this state directory: the same after a restart."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:20]


class EngineProcess:
    """A started engine. `stop` must be awaited in the end, also when the engine has died."""

    def __init__(self, process: asyncio.subprocess.Process, *, mark: str, log: Path) -> None:
        self._process = process
        self._mark = mark
        self.log = log
        self.pid = process.pid

    @classmethod
    async def start(cls, launch: LaunchSpec, *, owner: str, log: Path) -> "EngineProcess":
        """Start the process; it is not ready yet.

        Raises:
            EngineFailed: the program cannot be executed.
        """
        mark = secrets.token_hex(10)
        spawning = asyncio.ensure_future(_spawn(launch, {OWNER_MARK: owner, ENGINE_MARK: mark}, log))
        try:
            process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # The process may be there already: nobody else would ever know of it.
            with contextlib.suppress(OSError):
                await cls(await spawning, mark=mark, log=log).stop()
            raise
        except OSError as error:
            raise EngineFailed(f"{Path(launch.argv[0]).name} cannot be started: {error.strerror}") from error
        engine = cls(process, mark=mark, log=log)
        await engine._send(launch.stdin)
        return engine

    async def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        with contextlib.suppress(ConnectionError):  # it died at once: `announcement` will say so
            await self._process.stdin.drain()

    async def announcement(self) -> Announcement:
        """Wait for the line in which the engine says where it answers.

        Raises:
            EngineFailed: it ended without one, or said something else.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise EngineFailed(f"the engine {await self._ending()} before it was ready")
        try:
            said = json.loads(line)
            return Announcement(str(said["host"]), int(said["port"]))
        except (ValueError, KeyError, TypeError):
            raise EngineFailed("the engine did not say where it answers") from None

    async def wait(self) -> str:
        """Wait for the engine's end; returns how it ended, in words."""
        return await self._ending()

    async def _ending(self) -> str:
        code = await self._process.wait()
        if code < 0:
            return f"was killed by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    @property
    def alive(self) -> bool:
        """Whether the engine's first process has not ended, as far as this process was told."""
        return self._process.returncode is None

    def log_tail(self) -> str:
        """The end of the engine's own log. Blocks on the disk."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LOG_TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
        return ""

    def pids(self) -> tuple[int, ...]:
        """The engine and its descendants, as far as their parents are alive. Cheap."""
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(self.pid)
            return (self.pid, *(child.pid for child in process.children(recursive=True)))
        return ()

    async def stop(self) -> tuple[int, ...]:
        """End the whole tree: ask, then force, then look again; returns what is still there."""
        tree = await asyncio.to_thread(self._tree)
        self._let_go()
        _signal(tree, signal.SIGTERM)
        left = await self._await_end(tree, _TERM_S)
        left |= await asyncio.to_thread(marked, ENGINE_MARK, self._mark)  # what was started meanwhile
        if left:
            _signal(left, signal.SIGKILL)
            left = await self._await_end(left, _KILL_S)
        return tuple(sorted(process.pid for process in left))

    def _let_go(self) -> None:
        """Close stdin: an engine that watches it goes by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tree(self) -> set[psutil.Process]:
        """The engine and what it started: descendants, and what lost its parent but carries the mark."""
        found = marked(ENGINE_MARK, self._mark)
        with contextlib.suppress(psutil.Error):
            if self.alive:
                process = psutil.Process(self.pid)
                found |= {process, *process.children(recursive=True)}
        return found

    async def _await_end(self, processes: Iterable[psutil.Process], timeout_s: float) -> set[psutil.Process]:
        """Those that have not ended in time. Our child is left to asyncio, which alone may reap it."""
        others = [process for process in processes if process.pid != self.pid]
        waiting = asyncio.to_thread(psutil.wait_procs, others, timeout=timeout_s)
        (_, left), _ = await asyncio.gather(waiting, self._await_own_end(timeout_s))
        mine = {process for process in processes if process.pid == self.pid and self.alive}
        return {process for process in left if _is_there(process)} | mine

    async def _await_own_end(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), timeout_s)


async def _spawn(launch: LaunchSpec, marks: Mapping[str, str], log: Path) -> asyncio.subprocess.Process:
    with _fresh_log(log).open("wb") as stderr:
        return await asyncio.create_subprocess_exec(
            *launch.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            # The node's own settings may hold a join token: engines are given none of them.
            env={k: v for k, v in os.environ.items() if not k.startswith("PORTEN_")}
            | {**launch.env, **marks},
        )


def _fresh_log(log: Path) -> Path:
    """Keep the log of the start before, and begin an empty one that only the owner can read."""
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        log.replace(log.with_name(log.name + ".1"))
    log.touch(mode=0o600)
    return log


def marked(name: str, value: str) -> set[psutil.Process]:
    """Every process of this user whose environment carries the mark. Looks at all: call it in a thread."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.add(process)
    return {process for process in found if _is_there(process)}


def _is_there(process: psutil.Process) -> bool:
    """Whether it still runs; one that has ended but was not reaped holds no memory."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def sweep(owner: str) -> int:
    """Kill engines that an earlier node of the same state directory left behind; returns how many. Blocks."""
    strays = marked(OWNER_MARK, owner)
    _signal(strays, signal.SIGKILL)
    psutil.wait_procs(list(strays), timeout=_KILL_S)
    if strays:
        pids = [process.pid for process in strays]
        logger.warning("ended stray engines", extra={"event": "strays_swept", "pids": pids})
    return len(strays)
