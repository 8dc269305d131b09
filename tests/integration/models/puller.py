"""A process that pulls: `python -m tests.integration.models.puller STORE SPEC CRASH_AT`.

Each line that it writes is a JSON list: progress as it comes; at last `stored`, the digest, and how many
points it passed, one before and one after each durable operation. It kills itself at point CRASH_AT, if any.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import msgspec

from models.catalog import ModelSpec
from models.disk import Disk
from models.download import Progress, pull
from models.store import ModelStore


class KillingDisk(Disk):
    """Counts the points before and after each durable operation, and is the end of the process at one."""

    def __init__(self, crash_at: int) -> None:
        self.points = 0
        self._crash_at = crash_at

    def sync(self, path: Path) -> None:
        """Sync, as the disk does."""
        self._pass()
        super().sync(path)
        self._pass()

    def replace(self, source: Path, target: Path) -> None:
        """Rename, as the disk does."""
        self._pass()
        super().replace(source, target)
        self._pass()

    def _pass(self) -> None:
        self.points += 1
        if self.points == self._crash_at:
            os.kill(os.getpid(), signal.SIGKILL)


def say(*what: object) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(root: str, spec: str, crash_at: str) -> None:
    """Pull, and say so."""
    disk = KillingDisk(int(crash_at))

    def tell(progress: Progress) -> None:
        say(progress.phase, progress.done_bytes)

    store = ModelStore(Path(root), disk=disk)
    stored = asyncio.run(pull(msgspec.json.decode(spec, type=ModelSpec), store, on_progress=tell))
    say("stored", stored.digest, disk.points)


if __name__ == "__main__":
    main(*sys.argv[1:])
