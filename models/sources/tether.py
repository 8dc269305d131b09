"""Runs a module (`-m name`) or a script that dies with its parent. Run by path; imports nothing of Porten.

Standard input is a pipe that nobody writes to. It ends when the parent ends, however that happened, and then
this whole session ends too: no download goes on unseen, holding a lock that somebody else waits for.

The first argument is how many bytes a second the process may read from the network, all connections together;
0 for all there is. Clients that know no such limit are held to it where they read: at the socket. What is not
read the kernel does not acknowledge, so the server slows down.
"""

import os
import runpy
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Meter:
    """The share of the line that all connections of this process may take together."""

    def __init__(
        self,
        bytes_per_s: float,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._bytes_per_s = bytes_per_s
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._free_at = now()

    def take(self, count: int) -> None:
        """Wait until so many bytes may have come."""
        with self._lock:
            now = self._now()
            self._free_at = max(self._free_at, now) + count / self._bytes_per_s
            wait = self._free_at - now
        self._sleep(wait)


def limit(meter: Meter) -> None:
    """Have every socket of this process, encrypted or not, read through the meter."""
    for kind in (socket.socket, ssl.SSLSocket):
        for name, count in (("recv", len), ("recv_into", int)):
            setattr(kind, name, _metered(getattr(kind, name), count, meter))


def _metered(read: Callable[..., Any], count: Callable[[Any], int], meter: Meter) -> Callable[..., Any]:
    def metered(*arguments: Any, **named: Any) -> Any:
        found = read(*arguments, **named)
        meter.take(count(found))
        return found

    return metered


def _end_with_parent() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGKILL)


def main(bytes_per_s: float, arguments: list[str]) -> None:
    """Become what the arguments say."""
    threading.Thread(target=_end_with_parent, daemon=True, name="tether").start()
    if bytes_per_s:
        limit(Meter(bytes_per_s))
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
