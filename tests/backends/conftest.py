"""The real engine on the real model: one set of fixtures that every backend's conformance tests run on."""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.catalog import ModelSpec, load_catalog
from models.store import ModelStore, StoredModel
from runtime.backends.base import Backend, Endpoint, EngineOptions, ReplicaPlan
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.engines import EngineEnvironment
from runtime.launcher import Launcher
from runtime.process import EngineProcess

# A small context keeps the cache, and so the start, small; eight slots let eight requests run at once.
OPTIONS = EngineOptions(context_length=1024, slots=8)


@dataclass(frozen=True)
class Running:
    """An engine that answers."""

    process: EngineProcess
    endpoint: Endpoint
    plan: ReplicaPlan
    client: httpx.AsyncClient

    def body(self, prompt: str = "Name a colour.", **options: object) -> dict[str, object]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": "any", "messages": messages, "max_tokens": 16, **options}

    async def chat(self, prompt: str = "Name a colour.", **options: object) -> httpx.Response:
        return await self.client.post("/v1/chat/completions", json=self.body(prompt, **options))

    @contextlib.asynccontextmanager
    async def stream(
        self, prompt: str = "Name a colour.", **options: object
    ) -> AsyncIterator[httpx.Response]:
        body = self.body(prompt, stream=True, **options)
        async with self.client.stream("POST", "/v1/chat/completions", json=body) as response:
            assert response.status_code == 200, await response.aread()
            yield response

    async def chunks(self, prompt: str = "Name a colour.", **options: object) -> list[dict[str, Any]]:
        """Every chunk of a streamed answer that ended as a whole one does."""
        async with self.stream(prompt, **options) as response:
            lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
        assert lines[-1] == "data: [DONE]"
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]

    async def slots(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = (await self.client.get("/slots")).json()
        return found

    async def busy(self) -> int:
        return sum(bool(slot["is_processing"]) for slot in await self.slots())


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return load_catalog().require("smollm2-135m-instruct")


@pytest.fixture(scope="session")
def stored(shared_data: Path, spec: ModelSpec) -> StoredModel:
    found = ModelStore(shared_data / "models").find(spec)
    if found is None:
        pytest.skip("the model is not here yet: run `make fixtures`")
    return found


@pytest.fixture(params=["llama_cpp"])
def backend(request: pytest.FixtureRequest, shared_data: Path) -> Backend:
    """Every backend that claims to conform."""
    assert request.param == "llama_cpp"
    backend = LlamaCppBackend(EngineEnvironment(shared_data / "engines"))
    if not backend.available().ok:
        pytest.skip(f"{backend.available().reason}: run `make fixtures`")
    return backend


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path / "state")


@pytest.fixture
async def engine(
    backend: Backend, spec: ModelSpec, stored: StoredModel, launcher: Launcher
) -> AsyncIterator[Running]:
    plan = backend.plan(spec, stored, OPTIONS)
    launch = backend.command(spec, stored, plan)
    process = await launcher.start(launch, spec.id)
    try:
        endpoint = await launcher.ready(process, launch, backend)
        base = f"http://{endpoint.host}:{endpoint.port}{endpoint.base_path}"
        # llama.cpp closes a connection after a streamed reply without saying so: none is used twice.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(
            base_url=base, headers=list(endpoint.headers), timeout=60, limits=limits
        ) as client:
            yield Running(process, endpoint, plan, client)
    finally:
        assert await process.stop() == ()
