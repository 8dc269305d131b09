"""A supervisor over an endpoint of the owner's: offered and leased, without weights, memory or a process."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from models.catalog import Catalog, EndpointSource, ModelSpec, load_catalog
from models.store import ModelStore
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.engines import EngineEnvironment
from runtime.errors import EngineUnavailable, LoadFailed
from runtime.external import OwnersEndpoint
from runtime.supervisor import Supervisor, SupervisorSettings
from tests.integration.runtime.external.endpoints import MODEL_ID, MODELS, THEIRS, endpoint_at


@pytest.fixture
async def supervised(
    engine: Any, answers: Any, tmp_path: Path
) -> AsyncIterator[tuple[Supervisor, OwnersEndpoint]]:
    answers(MODELS)
    endpoint = endpoint_at(engine.port, slots=2)
    supervisor = Supervisor(
        catalog=load_catalog(),
        store=ModelStore(tmp_path / "models"),
        backends=[],
        devices=[],
        endpoints=[endpoint],
        settings=SupervisorSettings(state_dir=tmp_path / "state"),
    )
    task = asyncio.create_task(supervisor.run())
    await supervisor.looked_around.wait()
    yield supervisor, endpoint
    await supervisor.stop()
    await task


async def test_it_is_offered_leased_and_reported_without_weights_or_memory(supervised: Any) -> None:
    supervisor, _ = supervised
    (model,) = supervisor.snapshot().models
    assert (model.state, model.fits, model.on_disk) == ("cold", True, False)
    async with supervisor.lease(MODEL_ID, budget_s=30) as lease, supervisor.lease(MODEL_ID, budget_s=30):
        assert lease.model_digest == "external:own"
        assert lease.endpoint.model == THEIRS
        snapshot = supervisor.snapshot()
        (model,), (replica,) = snapshot.models, snapshot.replicas
        assert (model.state, model.digest, model.size_bytes) == ("ready", "external:own", 0)
        assert (replica.slots, replica.running, replica.reserved_bytes, replica.pid) == (2, 2, 0, None)
        assert replica.device == "external:own"
    await supervisor.unload(MODEL_ID)
    assert supervisor.snapshot().replicas == ()


async def test_there_is_nothing_to_pull(supervised: Any, tmp_path: Path) -> None:
    supervisor, _ = supervised
    with pytest.raises(LoadFailed, match="nothing to fetch"):
        await supervisor.pull(MODEL_ID)
    assert list((tmp_path / "models").glob("**/*.gguf")) == []


async def test_what_is_answered_goes_on_while_a_lost_endpoint_is_offered_no_more(
    supervised: Any, answers: Any
) -> None:
    supervisor, endpoint = supervised
    async with supervisor.lease(MODEL_ID, budget_s=30) as lease:
        answers(b'{"data": []}')
        await supervisor.examine(lease.replica_id)
        assert not endpoint.available(MODEL_ID).ok
        with pytest.raises(EngineUnavailable):
            async with supervisor.lease(MODEL_ID, budget_s=30):
                pass
        assert supervisor.snapshot().models[0].fits is False
    answers(MODELS)
    await endpoint.look()
    assert supervisor.snapshot().models[0].fits is True
    async with supervisor.lease(MODEL_ID, budget_s=30) as lease:
        assert lease.endpoint == endpoint.at(MODEL_ID)


async def test_a_line_for_its_slots_is_kept(supervised: Any) -> None:
    supervisor, _ = supervised
    async with supervisor.lease(MODEL_ID, budget_s=30), supervisor.lease(MODEL_ID, budget_s=30):
        third = asyncio.create_task(_hold(supervisor))
        await asyncio.sleep(0.05)
        assert not third.done()
        assert supervisor.snapshot().replicas[0].waiting == 1
    assert await third == "external:own"


async def test_a_model_that_only_endpoints_serve_is_offered_where_there_is_one(tmp_path: Path) -> None:
    spec = ModelSpec(id="theirs", name="Theirs", source=EndpointSource(), context_length=64)
    supervisor = Supervisor(
        catalog=Catalog([spec]),
        store=ModelStore(tmp_path / "models"),
        backends=[LlamaCppBackend(EngineEnvironment(tmp_path / "engines"))],
        devices=[],
        settings=SupervisorSettings(state_dir=tmp_path / "state"),
    )
    with pytest.raises(EngineUnavailable, match="no endpoint of this node serves it"):
        await supervisor.load("theirs")
    snapshot = supervisor.snapshot()
    assert (snapshot.accepting, snapshot.models[0].fits) == (False, False)


async def _hold(supervisor: Supervisor) -> str:
    async with supervisor.lease(MODEL_ID, budget_s=30) as lease:
        return lease.model_digest
