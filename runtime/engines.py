"""Engine environments: each engine in its own virtual environment, outside the node's.

Engines pin what the node pins too, at other versions; apart, either can be upgraded, rolled back or broken
without the other. Owns creating and checking the environments; must not know how an engine is started.
"""

import asyncio
import ctypes
import fcntl
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from runtime.errors import EngineUnavailable

# Pinned exactly: the engine script speaks to this version's Python binding, which has no stable interface.
XLLAMACPP_REQUIREMENT = "xllamacpp==2026.10.11549"
_OPENMP = "libgomp.so.1"
_OPENMP_REMEDY = "Debian and Ubuntu: apt-get install libgomp1; Fedora: dnf install libgomp"
_LINES_SHOWN = 3


@dataclass(frozen=True, slots=True)
class InstallProgress:
    """One step of an installation: `done` of `total` steps are over, and what is being done now."""

    step: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class _Recipe:
    """What an engine's environment consists of. `module` must import, or the environment is not used."""

    requirement: str
    module: str
    needs_openmp: bool

    @property
    def version(self) -> str:
        return self.requirement.partition("==")[2]


RECIPES = {"xllamacpp": _Recipe(XLLAMACPP_REQUIREMENT, "xllamacpp", needs_openmp=True)}


def missing_library(provider: str = "xllamacpp") -> tuple[str, str] | None:
    """The system library an engine needs and this machine lacks, with the command that installs it."""
    if not RECIPES[provider].needs_openmp or sys.platform != "linux":
        return None
    try:
        ctypes.CDLL(_OPENMP)
    except OSError:
        return _OPENMP, _OPENMP_REMEDY
    return None


class EngineEnvironment:
    """The virtual environment `<engines_dir>/<provider>/` of one engine.

    `installed.json` is written last: where it is missing, whatever else lies there is a half installation.
    """

    def __init__(self, engines_dir: Path, provider: str = "xllamacpp") -> None:
        self.root = engines_dir / provider
        self.provider = provider
        self._recipe = RECIPES[provider]
        self._stamp = self.root / "installed.json"

    @property
    def python(self) -> Path:
        """Its interpreter, whether it is there or not."""
        return self.root / "bin" / "python"

    def installed_version(self) -> str | None:
        """The engine's version, or None where it is not wholly installed. Reads the disk only."""
        try:
            version = json.loads(self._stamp.read_text("utf-8"))["version"]
        except (OSError, ValueError, KeyError):
            return None
        return str(version) if self.python.exists() else None

    def is_current(self) -> bool:
        """Whether the pinned version is installed."""
        return self.installed_version() == self._recipe.version

    async def install(self, on_progress: Callable[[InstallProgress], None] = lambda _: None) -> str:
        """Create the environment and install the pinned engine; returns its version. Safe to repeat.

        Two processes that install at once wait for each other, and the second finds the work done.

        Raises:
            EngineUnavailable: A system library is missing or the installation failed; carries the remedy.
        """
        self._check_machine()
        async with self._locked():
            if not self.is_current():
                await self._build(on_progress)
        on_progress(InstallProgress("ready", 3, 3))
        return self._recipe.version

    def _check_machine(self) -> None:
        if missing := missing_library(self.provider):
            raise EngineUnavailable(f"the system library {missing[0]} is missing", remedy=missing[1])

    async def _build(self, on_progress: Callable[[InstallProgress], None]) -> None:
        self._stamp.unlink(missing_ok=True)
        on_progress(InstallProgress("creating the environment", 0, 3))
        own_pip = importlib.util.find_spec("pip") is not None
        # Bootstrapping pip into every environment costs seconds; the node's own pip can install into it.
        await self._step(
            sys.executable, "-m", "venv", "--clear", *(["--without-pip"] * own_pip), str(self.root)
        )
        on_progress(InstallProgress(f"installing {self._recipe.requirement}", 1, 3))
        pip = (
            [sys.executable, "-m", "pip", "--python", str(self.python)]
            if own_pip
            else [self.python, "-m", "pip"]
        )
        await self._step(
            *map(str, pip), "install", "--disable-pip-version-check", "--no-input", self._recipe.requirement
        )
        on_progress(InstallProgress("checking", 2, 3))
        await self._step(str(self.python), "-c", f"import {self._recipe.module}")
        self._stamp.write_text(json.dumps({"version": self._recipe.version}), "utf-8")

    async def _step(self, *argv: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            last = output.decode("utf-8", "replace").strip().splitlines()[-_LINES_SHOWN:]
            raise EngineUnavailable(
                f"installing {self.provider} failed: {' | '.join(last)}",
                remedy="put that right, then run `porten engines install`",
            )

    @asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        self.root.parent.mkdir(parents=True, exist_ok=True)
        with (self.root.parent / f".{self.provider}.lock").open("w") as file:
            while not _try_lock(file):  # noqa: ASYNC110 - a file lock gives no event
                await asyncio.sleep(0.2)
            yield


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
