"""Which engine serves which model in a measurement, and where both lie on this machine.

Owns the choice and what it means for a node and for the engine by itself. Must not know what is measured.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.stack import ENGINE, MODEL, SharedData
from runtime.config import default_data_dir

DATA_VARIABLE: Final = "PORTEN_DATA_DIR"


def usual_data_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The data directory of this machine's node."""
    named = environ.get(DATA_VARIABLE)
    return Path(named) if named else default_data_dir(environ)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine serves which model.

    Attributes:
        data: where the engines and the models lie.
        backend: the engine, by the name that settings and commands use.
        model: its id in the catalog.
        catalog: further catalog files.
    """

    data: SharedData
    backend: str = ENGINE
    model: str = MODEL
    catalog: tuple[Path, ...] = ()

    def bare(self, directory: Path) -> BareEngine:
        """The engine by itself; it logs below `directory`.

        Raises:
            BenchmarkError: engine or model is not here, or they do not go together.
        """
        return BareEngine.of(
            self.data, directory, backend=self.backend, model=self.model, catalog=self.catalog
        )

    def settings(self) -> dict[str, str]:
        """A node's settings under which it offers that model, and serves it with that engine."""
        catalog = {"PORTEN_CATALOG": ",".join(map(str, self.catalog))} if self.catalog else {}
        return {"PORTEN_ENGINES": self.backend, "PORTEN_MODELS": self.model} | catalog
