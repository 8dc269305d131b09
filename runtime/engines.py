"""Engine environments: each engine in its own virtual environment, outside the node's.

Engines pin what the node pins too, at other versions; apart, either can be upgraded, rolled back or broken
without the other. Owns which version of an engine is in use; must not know how an engine is started.

    <provider>@<version>/    an environment; `installed.json` is written last, so that half of one is none
    <provider>               a link to the one in use (a folder, where an earlier release of Porten made it)
    <provider>.before        a link to the one that `rollback` goes back to
"""

import asyncio
import fcntl
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from runtime.engine_build import InstallProgress, OnProgress, build, total_steps
from runtime.engine_recipes import RECIPES, Recipe, missing_library
from runtime.errors import EngineInUse, EngineUnavailable

__all__ = ["EngineEnvironment", "InstallProgress", "missing_library"]

_STAMP = "installed.json"


class EngineEnvironment:
    """The versions of one engine below `engines_dir`, and the one that is in use."""

    def __init__(self, engines_dir: Path, provider: str = "xllamacpp") -> None:
        self.root = engines_dir / provider
        self.provider = provider
        self._before = engines_dir / f"{provider}.before"
        self._recipe = RECIPES[provider]

    @property
    def folder(self) -> Path:
        """The environment in use, by its own name: it stays what it is when another takes its place."""
        return self.root.resolve()

    @property
    def pinned_version(self) -> str:
        """The version this release of Porten was tried with."""
        return self._recipe.version

    @property
    def python(self) -> Path:
        """Its interpreter, whether it is there or not."""
        return self.folder / "bin" / "python"

    def installed_version(self) -> str | None:
        """The engine's version in use, or None where it is not wholly installed. Reads the disk only."""
        return _version_in(self.folder)

    def earlier_version(self) -> str | None:
        """The version that `rollback` would go back to."""
        return _version_in(self._before.resolve())

    def is_current(self) -> bool:
        """Whether the pinned version is in use."""
        return self.installed_version() == self.pinned_version

    async def install(self, on_progress: OnProgress = lambda _: None, *, version: str | None = None) -> str:
        """Build the pinned version, or that one, beside what is there, and put it to use; returns it.

        Safe to repeat. Two processes that install at once wait for each other, and the second finds the work
        done. Engines that run go on with the version they were started from.

        Raises:
            EngineUnavailable: a system library is missing or the installation failed; carries the remedy.
        """
        self._check_machine()
        recipe = self._recipe.at(version or self.pinned_version)
        async with self._locked():
            if self.installed_version() != recipe.version:
                await self._bring(recipe, on_progress)
        total = total_steps(recipe)
        on_progress(InstallProgress("ready", total, total))
        return recipe.version

    async def rollback(self) -> str:
        """Put the version before to use again; returns it. What was in use can be gone back to in turn.

        Raises:
            EngineUnavailable: there is none.
        """
        async with self._locked():
            earlier = self.earlier_version()
            if earlier is None:
                remedy = "run `porten engines upgrade` for the newest"
                raise EngineUnavailable(f"there is no earlier version of {self.provider}", remedy=remedy)
            self._switch(self._before.resolve())
        return earlier

    async def remove(self) -> int:
        """Remove every version of the engine; returns the bytes freed.

        Raises:
            EngineUnavailable: it is not installed.
            EngineInUse: processes run from it; nothing was removed.
        """
        async with self._locked():
            folders = self._folders()
            if not folders:
                raise EngineUnavailable(f"{self.provider} is not installed", remedy="")
            if pids := [pid for folder in folders for pid in await asyncio.to_thread(_users, folder)]:
                raise EngineInUse(self.provider, pids)
            for link in (self.root, self._before):
                if link.is_symlink():
                    link.unlink()
            return sum([await asyncio.to_thread(_remove, folder) for folder in folders])

    def _check_machine(self) -> None:
        if missing := missing_library(self.provider):
            raise EngineUnavailable(f"the system library {missing[0]} is missing", remedy=missing[1])

    async def _bring(self, recipe: Recipe, on_progress: OnProgress) -> None:
        folder = self.root.with_name(f"{self.provider}@{recipe.version}")
        if _version_in(folder) != recipe.version:
            (folder / _STAMP).unlink(missing_ok=True)
            await build(recipe, folder, on_progress)
            (folder / _STAMP).write_text(json.dumps({"version": recipe.version}), "utf-8")
        self._switch(folder)
        await self._remove_older()

    def _switch(self, folder: Path) -> None:
        """Point the link to another environment, in one step, and remember the one before."""
        self._make_way()
        if self.installed_version() is not None and self.folder != folder:
            _link(self._before, self.folder)
        _link(self.root, folder)

    def _make_way(self) -> None:
        """What an earlier release of Porten made is a folder where the link belongs."""
        if self.root.is_dir() and not self.root.is_symlink():
            version = _version_in(self.root)
            if version is None:
                shutil.rmtree(self.root)
            else:
                self.root.rename(self.root.with_name(f"{self.provider}@{version}"))
                _link(self.root, self.root.with_name(f"{self.provider}@{version}"))

    async def _remove_older(self) -> None:
        """Nobody can go back to these any more; what still runs from one keeps it until the next time."""
        for folder in set(self._folders()) - {self.folder, self._before.resolve()}:
            if not await asyncio.to_thread(_users, folder):
                await asyncio.to_thread(_remove, folder)

    def _folders(self) -> list[Path]:
        """Every environment of this engine, whole or not."""
        found = sorted(self.root.parent.glob(f"{self.provider}@*"))
        return found if self.root.is_symlink() or not self.root.is_dir() else [*found, self.root]

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with (self.root.parent / f".{self.provider}.lock").open("w") as file:
            while not _try_lock(file):  # noqa: ASYNC110 - a file lock gives no event
                await asyncio.sleep(0.2)
            yield


def _version_in(folder: Path) -> str | None:
    try:
        version = json.loads((folder / _STAMP).read_text("utf-8"))["version"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return str(version) if (folder / "bin" / "python").exists() else None


def _link(link: Path, folder: Path) -> None:
    fresh = link.with_name(f".{link.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder.name)
    fresh.replace(link)


def _users(folder: Path) -> list[int]:
    """Processes that run from an environment: started with its interpreter, or by one that was."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            started_with = (process.cmdline() or [""])[0]
            if started_with.startswith(f"{folder}/") or process.environ().get("VIRTUAL_ENV") == str(folder):
                found.append(process.pid)
    return found


def _remove(folder: Path) -> int:
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    shutil.rmtree(folder)
    return size


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
