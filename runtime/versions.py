"""The program's versions on this machine: a directory each, and links that say which of them is used.

Owns their places and every change of them, each in one step. Must not know where a version comes from, nor
what it does when it runs. `install.sh` lays out the same::

    <root>/versions/<name>/   a virtual environment, never changed once it is used
    <root>/current            link to the one that commands and the service use
    <root>/previous           link to the one before it
    <root>/trial              the name of one that the service shall start, once
    <root>/launch             what the service starts
    <root>/from-hub           there if a Hub handed the program out: upgrades come from there too
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from runtime.data_dir import PRIVATE_FILE, write_private
from runtime.errors import UpgradeRefused
from runtime.findings import gigabytes

ROOM_SHARE = 1.5
"""Room asked for, in sizes of the version that is used: pip unpacks beside what it installs."""
LAUNCHER = """#!/bin/sh
# What the service starts: a version on trial, once; else the current one.
here=$(dirname "$0")
{ read -r version <"$here/trial" && rm "$here/trial"; } 2>/dev/null || version=
[ -z "$version" ] || exec "$here/versions/$version/bin/porten" "$@"
exec "$here/current/bin/porten" "$@"
"""
_MODE = 0o755


class Versions:
    """What lies under `root`. Changes belong under `lock`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launcher = root / "launch"
        self._all = root / "versions"
        self._trial = root / "trial"

    @classmethod
    def of_this_program(cls, prefix: Path | None = None) -> "Versions":
        """Those beside the one that asks.

        Raises:
            UpgradeRefused: it was not installed that way.
        """
        prefix = prefix or Path(sys.prefix)
        versions = cls(prefix.parent if prefix.name == "current" else prefix.parent.parent)
        if not (versions.root / "current").is_symlink() or not versions._all.is_dir():
            raise UpgradeRefused(
                f"{prefix} does not keep versions side by side: run install.sh, or bring it up to date as it "
                "was installed"
            )
        return versions

    @property
    def current(self) -> Path:
        """The version in use.

        Raises:
            UpgradeRefused: its link leads nowhere.
        """
        if (found := self._target("current")) is None:
            raise UpgradeRefused(f"{self.root}/current leads nowhere: run install.sh")
        return found

    @property
    def previous(self) -> Path | None:
        """The version before, where it is still here."""
        found = self._target("previous")
        return None if found == self._target("current") else found

    @property
    def are_from_hub(self) -> bool:
        """Whether a Hub handed out what is installed here."""
        return (self.root / "from-hub").exists()

    def use(self, version: Path) -> None:
        """Make it the current one, and what is current the previous."""
        before = self._target("current")
        if before is not None and before != version:
            self._link("previous", before)
        self._link("current", version)

    def put_on_trial(self, version: Path) -> None:
        """Have the service start it the next time, and only then."""
        self.write_launcher()
        write_private(self._trial, f"{version.name}\n".encode())

    def withdraw_trial(self) -> None:
        """Have the service start the current one, if the trial has not begun."""
        self._trial.unlink(missing_ok=True)

    def write_launcher(self) -> None:
        """Put the launcher in its place."""
        temporary = self.root / f".launch.{secrets.token_hex(4)}"
        temporary.write_text(LAUNCHER, "utf-8")
        temporary.chmod(_MODE)
        temporary.replace(self.launcher)

    def new_place(self, version: str) -> Path:
        """A directory that is not there yet, named for the version."""
        names = [version, *(f"{version}-{number}" for number in range(2, 1000))]
        return next(place for name in names if not (place := self._all / name).exists())

    def require_room(self) -> None:
        """Refuse to begin what the disk cannot hold.

        Raises:
            UpgradeRefused: it is too full.
        """
        needed = size_on_disk(self.current) * ROOM_SHARE
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise UpgradeRefused(
                f"the disk is too full: {gigabytes(needed)} are needed at {self.root}, {gigabytes(free)} are "
                "free (`porten models rm` frees some)"
            )

    def sweep(self) -> None:
        """Take away what neither link names and nothing runs from: old versions, and half-made ones."""
        self.withdraw_trial()
        kept = {self._target("current"), self._target("previous")}
        for place in self._all.iterdir():
            if place not in kept and not is_in_use(place):
                shutil.rmtree(place, ignore_errors=True)
        for pattern in (".launch.*", ".trial.*", ".current.*", ".previous.*"):
            for left in self.root.glob(pattern):
                left.unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who changes versions; the kernel frees it when the process dies.

        Raises:
            UpgradeRefused: somebody else does.
        """
        descriptor = os.open(self.root / "upgrade.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise UpgradeRefused("another upgrade is under way: wait for its end") from None
        finally:
            os.close(descriptor)

    def _target(self, link: str) -> Path | None:
        try:
            place = self._all / (self.root / link).readlink().name
        except OSError:
            return None
        return place if (place / "bin" / "python").exists() else None

    def _link(self, name: str, version: Path) -> None:
        temporary = self.root / f".{name}.{secrets.token_hex(4)}"
        temporary.symlink_to(Path(self._all.name) / version.name)
        temporary.replace(self.root / name)


def version_of(place: Path) -> str | None:
    """The version that an environment holds, as its files say; None where it is not wholly installed."""
    found = sorted(place.glob("lib/python*/site-packages/porten-*.dist-info"))
    return found[0].name.removeprefix("porten-").removesuffix(".dist-info") if found else None


def program_of(place: Path) -> str:
    """How a running node names the environment it runs from."""
    return str(place.resolve())


def is_in_use(place: Path) -> bool:
    """Whether a process runs from that environment. Looks at all of them."""
    return any(runs_from(process, place) for process in psutil.process_iter())


def runs_from(process: psutil.Process, place: Path) -> bool:
    """Whether the process is that environment's interpreter."""
    with contextlib.suppress(psutil.Error):
        return any(Path(word).is_relative_to(place) for word in process.cmdline()[:2])
    return False


def size_on_disk(place: Path) -> int:
    """Bytes that a directory takes."""
    return sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118 - half the time for 10,000 files
        for folder, _, names in os.walk(place)
        for name in names
    )
