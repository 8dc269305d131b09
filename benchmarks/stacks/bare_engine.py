"""The engine by itself, started as a node starts it: what everything before it is measured against.

Owns its start and end. Must not know the Hub, the tunnel or how anything is measured.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.errors import BenchmarkError
from benchmarks.generator.target import Target
from benchmarks.stacks.stack import ENGINE, MODEL, SharedData
from models.catalog import ModelSpec
from models.errors import ModelsError
from models.store import StoredModel
from runtime import assembly
from runtime.backends.base import Backend, Endpoint, EngineOptions, ReplicaPlan
from runtime.config import NodeConfig
from runtime.errors import RuntimeFault
from runtime.launcher import Launcher


@dataclass(frozen=True, slots=True)
class RunningEngine:
    """Where it answers, and the root of its processes."""

    target: Target
    pid: int


@dataclass(frozen=True, slots=True)
class BareEngine:
    """An engine with its model, ready to be started. Its parameters are those of a node's replica."""

    backend: Backend
    spec: ModelSpec
    stored: StoredModel
    launcher: Launcher

    @classmethod
    def of(
        cls,
        shared: SharedData,
        directory: Path,
        *,
        backend: str = ENGINE,
        model: str = MODEL,
        catalog: Sequence[Path] = (),
    ) -> Self:
        """Find engine and model where nodes find them; logs go below `directory`.

        Raises:
            BenchmarkError: one of them is not there, or they do not go together; with the remedy.
        """
        config = NodeConfig.model_validate({"data_dir": shared.directory, "catalog": tuple(catalog)})
        try:
            spec = assembly.open_catalog(config).require(model)
            stored = assembly.open_store(config).find(spec)
        except (ModelsError, OSError) as error:
            raise BenchmarkError(str(error)) from error
        engine = _engine(config, backend, spec)
        if stored is None:
            raise BenchmarkError(f"{model} is not in {config.models_dir}: run `porten models pull {model}`")
        return cls(engine, spec, stored, Launcher(directory / "bare-engine"))

    def plan(self, options: EngineOptions) -> ReplicaPlan:
        """What a node would run.

        Raises:
            BenchmarkError: the weights cannot be read.
        """
        try:
            return self.backend.plan(self.spec, self.stored, options)
        except (ModelsError, OSError) as error:
            raise BenchmarkError(str(error)) from error

    @asynccontextmanager
    async def running(self, options: EngineOptions) -> AsyncIterator[Target]:
        """Run it; yields where it answers. The whole process tree is gone afterwards.

        Raises:
            BenchmarkError: it does not start.
        """
        async with self.process(options) as engine:
            yield engine.target

    @asynccontextmanager
    async def process(self, options: EngineOptions) -> AsyncIterator[RunningEngine]:
        """The same with its process.

        Raises:
            BenchmarkError: it does not start.
        """
        launch = self.backend.command(self.spec, self.stored, self.plan(options))
        try:
            process = await self.launcher.start(launch, self.spec.id)
        except RuntimeFault as fault:
            raise BenchmarkError(str(fault)) from fault
        try:
            try:
                endpoint = await self.launcher.ready(process, launch, self.backend)
            except RuntimeFault as fault:
                raise BenchmarkError(str(fault)) from fault
            yield RunningEngine(self._target(endpoint), process.pid)
        finally:
            await process.stop()

    def _target(self, endpoint: Endpoint) -> Target:
        key = dict(endpoint.headers)["authorization"].removeprefix("Bearer ")
        return Target(f"http://{endpoint.host}:{endpoint.port}/v1", self.spec.id, api_key=key)


def _engine(config: NodeConfig, name: str, spec: ModelSpec) -> Backend:
    """The backend of that name, if it is here and reads the model."""
    known = {backend.name: backend for backend in assembly.make_backends(config)}
    if (backend := known.get(name)) is None:
        raise BenchmarkError(f"there is no backend {name!r}; there are: {', '.join(known)}")
    if spec.format not in backend.formats:
        readable = ", ".join(sorted(backend.formats))
        raise BenchmarkError(f"{name} reads {readable}, and {spec.id} is {spec.format}: choose another model")
    if not (found := backend.available()).ok:
        raise BenchmarkError(f"{found.reason}: {found.remedy}")
    return backend
