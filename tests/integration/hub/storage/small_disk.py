"""A Hub's database on a small disk of its own: `python -m tests.integration.hub.storage.small_disk FOLDER`.

It puts a file system of a few megabytes over FOLDER, fills it, tries what a Hub does, makes room, and tries
again. The last line that it writes is a JSON object of what happened. Needs to be root, if in a namespace.
"""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from hub.errors import BackupInvalid, StorageUnavailable
from hub.storage import backup
from hub.storage.repositories import Storage

SIZE_BYTES = 8 * 2**20


def fill(path: Path) -> None:
    """Write until nothing more goes in."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    except OSError:
        return


async def attempt(call: Any) -> str:
    """How it went."""
    try:
        await call
    except (StorageUnavailable, BackupInvalid) as error:
        return str(error)
    return "done"


async def add_until_refused(storage: Storage) -> tuple[int, str]:
    """Add organisations until one is refused; how many went in, and what was said."""
    for number in range(10_000):
        said = await attempt(storage.organisations.create(f"o{number}", now=1.0))
        if said != "done":
            return number, said
    return 10_000, "never"


def back_up(storage: Storage, path: Path) -> Any:
    """A backup into the folder."""
    return backup.dump(storage.database, path, program="0", now=1.0, key=None, told=lambda *_: None)


async def run(folder: Path) -> dict[str, Any]:
    """Fill the disk, and have room again."""
    found: dict[str, Any] = {}
    async with await Storage.open(f"sqlite:///{folder}/hub.db") as storage:
        await storage.migrate()
        fill(folder / "ballast")
        found["added"], found["refused"] = await add_until_refused(storage)
        found["revision"] = await storage.settings.revision()
        found["kept"] = len(await storage.organisations.list())
        found["backup"] = await attempt(back_up(storage, folder / "b"))
        (folder / "ballast").unlink()
        found["again"] = await attempt(storage.organisations.create("again", now=1.0))
        found["backup again"] = await attempt(back_up(storage, folder / "b"))
        found["files"] = sorted(path.name for path in folder.iterdir() if not path.name.startswith("hub.db"))
    async with await Storage.open(f"sqlite:///{folder}/hub.db") as storage:
        async with storage.database.read() as connection:
            found["integrity"] = (await connection.exec_driver_sql("PRAGMA integrity_check")).scalar()
        found["reopened"] = len(await storage.organisations.list())
    return found


def main(folder: str) -> None:
    """Mount, and run."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", folder], check=True)
    sys.stdout.write(json.dumps(asyncio.run(run(Path(folder)))) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
