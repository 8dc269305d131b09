"""Engine environments: each engine in its own virtual environment, outside the node's.

Owns creating, checking and naming them; must not know how an engine is started.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class InstallProgress:
    """One step of an installation: `done` of `total` steps, and what is being done."""

    step: str
    done: int
    total: int


class EngineEnvironment:
    """The virtual environment `<engines_dir>/<provider>/` of one engine."""

    def __init__(self, engines_dir: Path, provider: str = "xllamacpp") -> None:
        self.root = engines_dir / provider
        self.provider = provider

    @property
    def python(self) -> Path:
        """Its interpreter, whether it is there or not."""
        return self.root / "bin" / "python"

    def installed_version(self) -> str | None:
        """The engine's version, or None where it is not (wholly) installed. Reads the disk only."""
        return None

    def missing_library(self) -> tuple[str, str] | None:
        """A system library the engine needs and the machine lacks, with the command that installs it."""
        return None

    async def install(self, on_progress: Callable[[InstallProgress], None] = lambda _: None) -> str:
        """Create the environment and install the pinned engine; returns its version. Safe to repeat.

        Raises:
            EngineUnavailable: a system library is missing or the installation failed; carries the remedy.
        """
        raise NotImplementedError
