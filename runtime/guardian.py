"""Ends the engines of a node that was killed. A script, not a module of Porten: it imports nothing of it.

The kernel kills an engine's first process with its node, but not what that process started, and a node that
is killed cannot look for it. This one waits on a pipe whose other end only the node holds, and when it closes
kills whatever carries the mark of that run. It is nobody's child, holds a few megabytes, and goes with its
node. Started by path with `-I -S`; its argument is the mark, `NAME=VALUE`, as engines' environments have it.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

_LONGEST_S = 10.0
_PAUSE_S = 0.02


def marked(mark: bytes) -> list[int]:
    """Every process that carries the mark; one that has ended has no environment any more."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def end(mark: bytes) -> None:
    """Kill until nothing is found: what is killed may have been starting others."""
    until = time.monotonic() + _LONGEST_S
    while (found := marked(mark)) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_PAUSE_S)


def main() -> None:
    """Leave the node's family, wait for its end, and do what there is to do."""
    if os.fork():
        os._exit(0)
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the node ends first, and this with it
    while os.read(0, 64):
        pass
    end(os.fsencode(sys.argv[1]))


if __name__ == "__main__":
    main()
