"""The engine by itself, started as a node starts it: what everything before it is measured against.

Owns its start and end. Must not know the Hub, the tunnel or how anything is measured.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.errors import BenchmarkError
from benchmarks.stack import MODEL, SharedData
from benchmarks.target import Target
from models.catalog import ModelSpec, load_catalog
from models.store import ModelStore, StoredModel
from runtime.backends.base import Endpoint, EngineOptions
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.engines import EngineEnvironment
from runtime.launcher import Launcher


@dataclass(frozen=True, slots=True)
class BareEngine:
    """An engine with its model, ready to be started. Its parameters are those of a node's replica."""

    backend: LlamaCppBackend
    spec: ModelSpec
    stored: StoredModel
    launcher: Launcher

    @classmethod
    def of(cls, shared: SharedData, directory: Path) -> Self:
        """Find engine and model where nodes find them; logs go below `directory`.

        Raises:
            BenchmarkError: one of them is not there.
        """
        spec = load_catalog().require(MODEL)
        backend = LlamaCppBackend(EngineEnvironment(shared.directory / "engines"))
        stored = ModelStore(shared.directory / "models").find(spec)
        if stored is None or not backend.available().ok:
            raise BenchmarkError("the engine and the model are not here yet: run `make fixtures`")
        return cls(backend, spec, stored, Launcher(directory / "bare-engine"))

    @asynccontextmanager
    async def running(self, options: EngineOptions) -> AsyncIterator[Target]:
        """Run it; yields where it answers. The whole process tree is gone afterwards."""
        plan = self.backend.plan(self.spec, self.stored, options)
        launch = self.backend.command(self.spec, self.stored, plan)
        process = await self.launcher.start(launch, self.spec.id)
        try:
            yield self._target(await self.launcher.ready(process, launch, self.backend))
        finally:
            await process.stop()

    def _target(self, endpoint: Endpoint) -> Target:
        key = dict(endpoint.headers)["authorization"].removeprefix("Bearer ")
        return Target(f"http://{endpoint.host}:{endpoint.port}/v1", self.spec.id, api_key=key)
