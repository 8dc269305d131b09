"""A process with a small disk of its own: `python -m tests.integration.models.small_disk FOLDER SPEC`.

It puts a file system of a few megabytes over FOLDER, begins to pull into it, fills what is left of it in the
middle and says `filled`. When that pull has ended, it says so, makes room and pulls again. Each line that it
writes is a JSON list. Needs to be root, if only in a namespace of its own.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import msgspec

from models.catalog import ModelSpec
from models.download import Progress, pull
from models.errors import DownloadFailed
from models.store import ModelStore
from tests.integration.models.puller import say

SIZE_BYTES = 16 * 2**20
# Of what comes: both large files are held back by then, in their middle.
FILLED_AFTER = 4 * 2**20


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        say("filled")


def empty(path: Path) -> None:
    """Give the room back."""
    path.unlink()


async def run(folder: Path, spec: ModelSpec) -> None:
    """Pull on a disk that fills up, and again when it has room."""
    store, ballast = ModelStore(folder / "models"), folder / "ballast"

    def tell(progress: Progress) -> None:
        if progress.done_bytes >= FILLED_AFTER and not ballast.exists():
            fill(ballast)

    try:
        await pull(spec, store, on_progress=tell)
    except DownloadFailed as failed:
        say("failed", str(failed), failed.remedy, len(store.list()))
    empty(ballast)
    stored = await pull(spec, store)
    say("stored", stored.digest)


def main(folder: str, spec: str) -> None:
    """Mount, and run."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", folder], check=True)
    asyncio.run(run(Path(folder), msgspec.json.decode(spec, type=ModelSpec)))


if __name__ == "__main__":
    main(*sys.argv[1:])
