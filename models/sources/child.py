"""A child process that downloads: its lines are read as they come; it never outlives whoever waits for it.

Third-party clients run outside this process because they block, cannot be interrupted in a thread, and have
their own ideas of signals, locales and memory.
"""

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from models.blocking import settled
from models.disk import FileLock
from models.sources import tether

# Enough to explain a failure, not enough to matter.
KEPT_LINES = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How the child ended, and the last lines it wrote."""

    code: int
    lines: tuple[str, ...]


async def run_python(
    arguments: Sequence[str],
    *,
    lock: FileLock,
    extra_environment: Mapping[str, str],
    on_line: Callable[[str], None],
    bytes_per_s: float | None = None,
) -> Ended:
    """Run a module (`-m name`) or a script with this interpreter; cancelling kills it and what it started.

    The child is tethered to this process and inherits the lock: should this process be killed, nobody touches
    the workspace before the child is gone too. `-P` keeps the user's current folder out of its module path.

    Args:
        arguments: What to run.
        lock: Held by the caller.
        extra_environment: Added to this process's own.
        on_line: Told each line that the child writes.
        bytes_per_s: Most that it may read from the network; None for all there is.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        tether.__file__,
        str(bytes_per_s or 0.0),
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **extra_environment},
        start_new_session=True,
        pass_fds=[lock.descriptor],
    )
    try:
        lines = await _read(process, on_line)
        return Ended(code=await process.wait(), lines=lines)
    finally:
        if process.returncode is None:
            await _kill(process)
        if process.stdin is not None:
            process.stdin.close()


async def _read(process: asyncio.subprocess.Process, on_line: Callable[[str], None]) -> tuple[str, ...]:
    assert process.stdout is not None
    kept: deque[str] = deque(maxlen=KEPT_LINES)
    rest = ""
    while piece := await process.stdout.read(65536):
        *lines, rest = (rest + piece.decode("utf-8", "replace")).replace("\r", "\n").split("\n")
        for line in filter(None, map(str.strip, lines)):
            kept.append(line)
            on_line(line)
    if rest.strip():
        kept.append(rest.strip())
        on_line(rest.strip())
    return tuple(kept)


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the child's whole session; it has nothing to tidy up that a crash would not leave as well."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await settled(asyncio.ensure_future(process.communicate()))
