"""Owns child processes of a stack under measurement: start, wait for a line, stop, kill.

Each has a session of its own, since Ctrl-C in a terminal goes to a whole group, and it is this process that
ends them, after their last answers are counted. They do not outlive it, however it ends.

It knows nothing of Porten: what a line means is the caller's business.
"""

import asyncio
import ctypes
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import psutil

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)
"""Loaded here: between fork and exec as little as possible is to happen."""


class ProcessFailed(Exception):
    """A child ended, or did not say what was awaited in time; the message ends with its last lines."""


@dataclass(slots=True)
class _Ending:
    """The children that are being stopped; in haste none of them is waited for."""

    processes: set["ManagedProcess"] = field(default_factory=set)
    in_haste: bool = False


_ENDING: Final = _Ending()


def hurry() -> None:
    """Kill the children that are being stopped, and from now on each that will be, instead of waiting.

    What still runs is left alone: it may yet be measured. May be called from a signal handler.
    """
    _ENDING.in_haste = True
    for process in tuple(_ENDING.processes):
        process.signal(signal.SIGKILL)


def kill_all() -> None:
    """Kill all that this process has started, and what that has started; for a program that ends now."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """In a child: ask the kernel for this signal when the thread that started it ends (Linux, prctl(2))."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


class ManagedProcess:
    """One child whose output, standard error included, goes to a file and can be awaited line by line.

    Use as an async context manager: leaving it stops the child (SIGTERM, then SIGKILL).
    """

    def __init__(self, name: str, argv: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._argv = argv
        self._environment = environment
        self._lines: list[str] = []
        self._changed = asyncio.Condition()
        self._process: asyncio.subprocess.Process | None = None
        self._pump: asyncio.Task[None] | None = None
        self._said_all = False

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def pid(self) -> int:
        """Process id of the running child."""
        if self._process is None:
            raise ProcessFailed(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the child was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def output(self) -> str:
        """All that the child has printed so far."""
        return "\n".join(self._lines)

    async def start(self) -> None:
        """Start the child; its output is read from now on."""
        self._lines.clear()
        self._said_all = False
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(self._environment),
            start_new_session=True,
            preexec_fn=end_with_parent,
        )
        self._pump = asyncio.create_task(self._read_lines(), name=f"output of {self.name}")

    async def _read_lines(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab", buffering=0) as log:
            async for line in self._process.stdout:
                log.write(line)
                async with self._changed:
                    self._lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._changed.notify_all()
        await self._process.wait()
        async with self._changed:
            self._said_all = True
            self._changed.notify_all()

    async def wait_for_line(self, pattern: str, *, timeout_s: float = 60, after: int = 0) -> re.Match[str]:
        """Return the first match of `pattern` in a line, from line number `after` on.

        Raises:
            ProcessFailed: the child ended first, or `timeout_s` seconds passed.
        """
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                while True:
                    for line in self._lines[after:]:
                        if match := re.search(pattern, line):
                            return match
                    if self._said_all:  # that it has ended may be known before its last words are
                        raise ProcessFailed(f"{self.name} ended before it said {pattern!r}:\n{self._tail()}")
                    await self._changed.wait()
        except TimeoutError as error:
            raise ProcessFailed(
                f"{self.name} did not say {pattern!r} in {timeout_s} s:\n{self._tail()}"
            ) from error

    def lines_so_far(self) -> int:
        """How many lines came yet: give it to `wait_for_line(after=...)` to await only what comes next."""
        return len(self._lines)

    def _tail(self) -> str:
        return "\n".join(self._lines[-15:])

    async def wait(self) -> int:
        """Wait for the end and return the exit status (negative: the signal)."""
        assert self._process is not None
        assert self._pump is not None
        await asyncio.shield(self._pump)  # who is cancelled while waiting takes nothing from others who wait
        return await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child alone."""
        if self.running:
            os.kill(self.pid, number)

    async def kill(self) -> None:
        """SIGKILL, as a crash would have it, and wait for the end."""
        self.signal(signal.SIGKILL)
        await self.wait()

    async def stop(self, *, grace_s: float = 45) -> int | None:
        """SIGTERM, wait `grace_s` seconds, then SIGKILL. Returns the exit status."""
        if self._process is None:
            return None
        _ENDING.processes.add(self)  # first: from here on `hurry` finds it, at whatever moment it comes
        try:
            self.signal(signal.SIGKILL if _ENDING.in_haste else signal.SIGTERM)
            return await asyncio.wait_for(asyncio.shield(self.wait()), grace_s)
        except TimeoutError:
            await self.kill()
        except asyncio.CancelledError:  # nobody waits any more
            self.signal(signal.SIGKILL)
            raise
        finally:
            _ENDING.processes.discard(self)
        return self._process.returncode


def clean_environment(**settings: str) -> dict[str, str]:
    """This process's environment without its PORTEN settings, plus `settings`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
    return kept | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1", "COLUMNS": "120"} | settings
