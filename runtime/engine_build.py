"""Building one engine's virtual environment from its recipe: the slow, outside work of `runtime.engines`.

Must not know which of several environments is in use.
"""

import asyncio
import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from runtime.engine_recipes import PipStep, Recipe
from runtime.errors import EngineUnavailable

_LINES_SHOWN = 3
_REQUIRES = "import importlib.metadata as m, json, sys; print(json.dumps(m.requires(sys.argv[1]) or []))"


@dataclass(frozen=True, slots=True)
class InstallProgress:
    """One step of an installation: `done` of `total` steps are over, and what is being done now."""

    step: str
    done: int
    total: int


OnProgress = Callable[[InstallProgress], None]


def total_steps(recipe: Recipe) -> int:
    """How many steps building it takes: the environment, each run of pip, the check."""
    return len(recipe.steps) + 2


async def build(recipe: Recipe, folder: Path, on_progress: OnProgress) -> None:
    """Make the environment in `folder`, whatever lies there now, and see that the engine imports.

    Raises:
        EngineUnavailable: a step failed; the end of what it said is in the message.
    """
    total = total_steps(recipe)
    on_progress(InstallProgress("creating the environment", 0, total))
    # Bootstrapping pip into every environment costs seconds; the node's own pip can install into it.
    bare = ["--without-pip"] * _has_own_pip()
    await _run(recipe, sys.executable, "-m", "venv", "--clear", *bare, str(folder))
    python = str(folder / "bin" / "python")
    for number, step in enumerate(recipe.steps, 1):
        on_progress(InstallProgress(f"installing {step.title}", number, total))
        await _install(recipe, step, python)
    on_progress(InstallProgress("checking", total - 1, total))
    await _run(recipe, python, "-c", f"import {recipe.module}")


async def _install(recipe: Recipe, step: PipStep, python: str) -> None:
    required: list[str] = []
    if step.requirements_of is not None:
        required = json.loads(await _run(recipe, python, "-c", _REQUIRES, step.requirements_of))
    pip = [sys.executable, "-m", "pip", "--python", python] if _has_own_pip() else [python, "-m", "pip"]
    quiet = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    await _run(recipe, *pip, "install", *quiet, *step.wanted(recipe.version, required))


def _has_own_pip() -> bool:
    return importlib.util.find_spec("pip") is not None


async def _run(recipe: Recipe, *argv: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, complaints = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        last = (output + complaints).decode("utf-8", "replace").strip().splitlines()[-_LINES_SHOWN:]
        raise EngineUnavailable(
            f"installing {recipe.provider} failed: {' | '.join(last)}",
            remedy="put that right, then run `porten engines install`",
        )
    return output
