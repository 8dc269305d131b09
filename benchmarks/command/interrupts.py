"""What Ctrl-C, SIGTERM and a closed terminal mean to a command: the more of them, the sooner its end.

The first asks the measurement to stop, and keeps what was measured. The second, which often comes by
impatience, loses nothing either: processes that are being stopped are killed instead of waited for. The third
ends the program at once. Owns the count and the words. Must not know what is measured.
"""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any, Final

from benchmarks.machine.processes import hurry, kill_all

_STDERR: Final = 2
_WORDS: Final = (
    "Ending; what was measured will be shown and written.",
    "Still ending, and waiting for nothing more. Once more ends at once: what was measured is lost then.",
    "Ended at once; nothing was kept that is not written yet.",
)


class Interrupts:
    """Counts them, from `heed` until `restore`."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._count = 0
        self._tell: Callable[[], object] | None = None

    def heed(self) -> None:
        """From now on they mean what is said above."""
        for number in () if self._before else _heard():
            self._before[number] = signal.signal(number, self._interrupt)

    def restore(self) -> None:
        """From now on they mean what they meant before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before, self._count = {}, 0

    @contextmanager
    def stopping(self, stop: asyncio.Event) -> Iterator[None]:
        """Within this the first sets the event; to be used within the running loop."""
        self._tell = partial(asyncio.get_running_loop().call_soon_threadsafe, stop.set)
        if self._count:  # it came before there was anything to stop
            stop.set()
        try:
            yield
        finally:
            self._tell = None

    def _interrupt(self, _: int, __: FrameType | None) -> None:
        # The next may come amid this one: each keeps to its own number, or none would stop anything.
        count = self._count = self._count + 1
        _say(_WORDS[min(count, len(_WORDS)) - 1])
        if count == 1:
            if self._tell is not None:
                self._tell()
        elif count == 2:
            hurry()
        else:
            self.restore()
            kill_all()
            raise KeyboardInterrupt


def _heard() -> Iterator[signal.Signals]:
    """Which are heard. Who started this with a closed terminal in mind (nohup) is not contradicted."""
    yield from (signal.SIGINT, signal.SIGTERM)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        yield signal.SIGHUP


def _say(text: str) -> None:
    # Not by sys.stderr: in the middle of whose writing a signal may come.
    with suppress(OSError):
        os.write(_STDERR, f"\n{text}\n".encode())
