"""One engine process and everything it started: begun in its own session, found by a mark, ended whole.

Owns operating-system processes; must not know models, slots or HTTP.

Four things tie an engine to the node: the node holds the engine's stdin open (its end is the engine's end),
the engine asks the kernel to be killed with its parent, a mark in its environment lets `runtime/guardian.py`
end whatever else there is when the node is killed, and lets a later node find what got away even from that.
The kernel binds the second to the THREAD that starts the engine: start engines from one that lives as long as
the node.

What belongs to an engine is found by more than its process group: by descent, by its session, by the mark,
and by having been seen before. Only what leaves the session, clears its environment and loses its parent
between two looks is not found.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from runtime.backends.base import LaunchSpec
from runtime.errors import EngineFailed

logger = logging.getLogger(__name__)

OWNER_MARK = "PORTEN_ENGINE_OF"
RUN_MARK = "PORTEN_ENGINE_OF_RUN"
ENGINE_MARK = "PORTEN_ENGINE"
_TERM_S = 3.0
_KILL_S = 5.0
_LOG_TAIL_BYTES = 16 * 1024
_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Announcement:
    """Where an engine answers."""

    host: str
    port: int


def owner_of(state_dir: Path) -> str:
    """The mark of the node with this state directory: the same after a restart."""
    return hashlib.sha256(str(state_dir.resolve()).encode()).hexdigest()[:20]


class _Spawned(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells the process's own end: `Process.wait` may wait until its children close what they inherited."""

    def __init__(self) -> None:
        super().__init__(limit=_LINE_BYTES, loop=asyncio.get_running_loop())
        self.exited = asyncio.Event()

    def process_exited(self) -> None:
        super().process_exited()
        self.exited.set()


class EngineProcess:
    """A started engine. `stop` must be awaited in the end, also when the engine has died."""

    def __init__(
        self, process: asyncio.subprocess.Process, exited: asyncio.Event, *, mark: str, log: Path
    ) -> None:
        self._process = process
        self._exited = exited
        self._mark = mark
        self._seen: set[psutil.Process] = set()
        self.log = log
        self.pid = process.pid

    @classmethod
    async def start(cls, launch: LaunchSpec, *, owner: str, log: Path, run: str = "") -> "EngineProcess":
        """Start the process, with the marks of the node and of this run of it; it is not ready yet.

        Raises:
            EngineFailed: the program cannot be executed.
        """
        mark = secrets.token_hex(10)
        spawning = asyncio.ensure_future(
            _spawn(launch, {OWNER_MARK: owner, RUN_MARK: run, ENGINE_MARK: mark}, log)
        )
        try:
            process, exited = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # The process may be there already: nobody else would ever know of it.
            with contextlib.suppress(OSError):
                await cls(*await spawning, mark=mark, log=log).stop()
            raise
        except OSError as error:
            raise EngineFailed(f"{Path(launch.argv[0]).name} cannot be started: {error.strerror}") from error
        engine = cls(process, exited, mark=mark, log=log)
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
        line = await self._first_line()
        if not line:
            raise EngineFailed(f"the engine {await self._ending()} before it was ready")
        try:
            said = json.loads(line)
            return Announcement(str(said["host"]), int(said["port"]))
        except (ValueError, KeyError, TypeError):
            raise EngineFailed("the engine did not say where it answers") from None

    async def _first_line(self) -> bytes:
        """Its first line; empty where it ended without one, though its children may hold its stdout open."""
        assert self._process.stdout is not None
        reading = asyncio.ensure_future(self._process.stdout.readline())
        ending = asyncio.ensure_future(self._exited.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()
            ending.cancel()

    async def wait(self) -> str:
        """Wait for the engine's end; returns how it ended, in words."""
        return await self._ending()

    async def _ending(self) -> str:
        await self._exited.wait()
        code = self._process.returncode or 0
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
        """The engine and its descendants, also those that were seen before they lost their parent. Blocks."""
        return tuple(process.pid for process in self._remember(self._family()))

    @property
    def known_pids(self) -> tuple[int, ...]:
        """What the last look found. Cheap."""
        return tuple(process.pid for process in self._seen)

    def look(self) -> None:
        """Find all that belongs to the engine, and remember it. Looks at every process: use a thread."""
        self._tree()

    async def stop(self) -> tuple[int, ...]:
        """End the whole tree: ask, then force, and look again until nothing is left; returns what is."""
        tree = await asyncio.to_thread(self._tree)
        self._let_go()
        _signal(tree, signal.SIGTERM)
        await self._await_end(tree, _TERM_S)
        loop = asyncio.get_running_loop()
        until = loop.time() + _KILL_S
        while left := await asyncio.to_thread(self._tree):  # what was started meanwhile, too
            _signal(left, signal.SIGKILL)
            await self._await_end(left, until - loop.time())
            if loop.time() >= until:
                break
        return tuple(sorted(process.pid for process in left if _is_there(process)))

    def _let_go(self) -> None:
        """Close stdin: an engine that watches it goes by itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tree(self) -> set[psutil.Process]:
        """All that belongs to the engine: its family, what carries its mark, and what is in its session.

        A process keeps its session although its parent is gone and its environment was cleared. The number
        means this engine's session only while its first process is not reaped: later it may be another's.
        """
        found = marked(ENGINE_MARK, self._mark) | self._family()
        if self.alive:
            found |= _in_session(self.pid)
        return self._remember(found)

    def _family(self) -> set[psutil.Process]:
        """The engine, if it runs, what was found before and still runs, and what descends from these."""
        found = {process for process in self._seen if _is_there(process)}
        with contextlib.suppress(psutil.Error):
            if self.alive:
                found.add(psutil.Process(self.pid))
        return found | _descendants({process.pid for process in found})

    def _remember(self, found: set[psutil.Process]) -> set[psutil.Process]:
        """A process is known by its number and its birth, so what was seen once is found again, or gone."""
        self._seen = found | {process for process in self._seen if _is_there(process)}
        return found

    async def _await_end(self, processes: Iterable[psutil.Process], timeout_s: float) -> None:
        """Wait until all have ended, or time is up. Our child is left to asyncio, which alone may reap it."""
        others = [process for process in processes if process.pid != self.pid]
        timeout_s = max(0.0, timeout_s)
        waiting = asyncio.to_thread(psutil.wait_procs, others, timeout=timeout_s)
        await asyncio.gather(waiting, self._await_own_end(timeout_s))

    async def _await_own_end(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exited.wait(), timeout_s)


async def _spawn(
    launch: LaunchSpec, marks: Mapping[str, str], log: Path
) -> tuple[asyncio.subprocess.Process, asyncio.Event]:
    loop = asyncio.get_running_loop()
    with _fresh_log(log).open("wb") as stderr:
        transport, protocol = await loop.subprocess_exec(
            _Spawned,
            *launch.argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            # The node's own settings may hold a join token: engines are given none of them.
            env={k: v for k, v in os.environ.items() if not k.startswith("PORTEN_")}
            | {**launch.env, **marks},
        )
    return asyncio.subprocess.Process(transport, protocol, loop), protocol.exited


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


def _in_session(session: int) -> set[psutil.Process]:
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            if os.getsid(process.pid) == session:
                found.add(process)
    return {process for process in found if _is_there(process)}


def _descendants(pids: Collection[int]) -> set[psutil.Process]:
    """Every process below these, by one look at all of them."""
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter() if pids else ():
        with contextlib.suppress(psutil.Error):
            children.setdefault(process.ppid(), []).append(process)
    found: set[psutil.Process] = set()
    below = [child for pid in pids for child in children.get(pid, ())]
    while below:
        found.update(below)
        below = [child for process in below for child in children.get(process.pid, ()) if child not in found]
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
    until, ended = time.monotonic() + _KILL_S, set[int]()
    while (strays := marked(OWNER_MARK, owner)) and time.monotonic() < until:
        _signal(strays, signal.SIGKILL)
        psutil.wait_procs(list(strays), timeout=_KILL_S)
        ended |= {process.pid for process in strays}
    if ended:
        fields = {"event": "strays_swept", "pids": sorted(ended)}
        logger.warning("ended stray engines", extra=fields)
    return len(ended)
