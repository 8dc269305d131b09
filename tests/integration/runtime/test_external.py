"""Endpoints that the owner runs: looked at, let in with a key, lost and found again, and never ended by us.

Ollama is not to be had here: its list is spoken by a server of the tests' own. The OpenAI-compatible endpoint
is llama.cpp's own server, a process beside the node.
"""

import asyncio
import contextlib
import json
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from models.catalog import Catalog, EndpointSource, ModelSpec, load_catalog
from models.store import ModelStore
from runtime import external
from runtime.backends.external import MISSES
from runtime.backends.llama_cpp import LlamaCppBackend
from runtime.endpoint_settings import EndpointSettings
from runtime.engines import EngineEnvironment
from runtime.errors import EngineFailed, EngineUnavailable, LoadFailed
from runtime.external import OwnersEndpoint
from runtime.process import ENGINE_MARK, OWNER_MARK
from runtime.supervisor import Supervisor, SupervisorSettings

MODEL_ID = "smollm2-135m-instruct"
THEIRS = "their/name:1"
TAGS = json.dumps({"models": [{"name": THEIRS, "model": THEIRS, "size": 1}]}).encode()
MODELS = json.dumps({"object": "list", "data": [{"id": THEIRS, "object": "model"}]}).encode()


def endpoint_at(port: int, **settings: Any) -> OwnersEndpoint:
    usual = {"url": f"http://127.0.0.1:{port}", "models": {MODEL_ID: THEIRS}}
    return OwnersEndpoint("own", EndpointSettings(**{**usual, **settings}))


@pytest.fixture
def answers(engine: Any) -> Callable[..., None]:
    """Has the scripted engine give one answer to everything."""

    def with_answer(body: bytes, status: int = 200) -> None:
        async def script(request: Any, connection: Any) -> None:
            await connection.answer(status, body)

        engine.script = script

    return with_answer


# one endpoint


@pytest.mark.parametrize(
    ("kind", "listing", "path"), [("openai", MODELS, "/v1/models"), ("ollama", TAGS, "/api/tags")]
)
async def test_its_list_says_what_it_serves(
    engine: Any, answers: Any, kind: str, listing: bytes, path: str
) -> None:
    answers(listing)
    endpoint = endpoint_at(engine.port, kind=kind, url=f"http://127.0.0.1:{engine.port}/llm/v1")
    assert not endpoint.available(MODEL_ID).ok, "nothing was seen yet"
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok
    at = endpoint.at(MODEL_ID)
    assert (at.host, at.port, at.base_path, at.model) == ("127.0.0.1", engine.port, "/llm", THEIRS)
    assert [(asked.method, asked.path) for asked in engine.requests] == [("GET", f"/llm{path}")]
    answers(b'{"data": [], "models": []}')
    await endpoint.look()
    assert endpoint.available(MODEL_ID).reason == "the endpoint 'own' does not have the model"
    assert THEIRS not in str(endpoint.available(MODEL_ID)), "its name there is the owner's business"
    with pytest.raises(EngineFailed):
        endpoint.at(MODEL_ID)


async def test_its_key_is_sent_and_shown_nowhere(
    engine: Any, answers: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = tmp_path / "key"
    key.write_text("hunter2\n")
    key.chmod(0o600)
    answers(MODELS)
    endpoint = endpoint_at(engine.port, api_key_file=key)
    await endpoint.look()
    assert engine.requests[0].headers["authorization"] == "bearer hunter2"  # the fixture reads in lower case
    at = endpoint.at(MODEL_ID)
    assert at.headers == (("authorization", "Bearer hunter2"),)
    answers(b"", 401)
    await endpoint.look()
    trouble = endpoint.trouble(MODEL_ID)
    assert trouble is not None
    assert trouble.reason == "refuses the node's key"
    shown = f"{at!r} {endpoint.settings!r} {endpoint.available(MODEL_ID)} {trouble} {caplog.text}"
    assert "hunter2" not in shown
    assert "an endpoint does not serve" in caplog.text


@pytest.mark.parametrize(
    ("content", "mode", "remedy"),
    [
        (b"hunter2", 0o644, "chmod 600"),
        (b"", 0o600, "alone on one line"),
        (b"hunter2\nhunter3", 0o600, "alone on one line"),
        (b"hunter2 x", 0o600, "alone on one line"),
        (b"hunter2\xff", 0o600, "not plain text"),
        (None, 0o600, "No such file"),
    ],
)
async def test_a_key_that_cannot_be_used_is_said_and_nothing_is_sent(
    engine: Any, answers: Any, tmp_path: Path, content: bytes | None, mode: int, remedy: str
) -> None:
    key = tmp_path / "key"
    if content is not None:
        key.write_bytes(content)
        key.chmod(mode)
    answers(MODELS)
    endpoint = endpoint_at(engine.port, api_key_file=key)
    await endpoint.look()
    trouble = endpoint.trouble(MODEL_ID)
    assert trouble is not None
    assert remedy in trouble.remedy
    assert str(key) in trouble.remedy
    assert str(key) not in str(endpoint.available(MODEL_ID))
    assert "hunter" not in f"{trouble}"
    assert engine.requests == []
    key.write_text("hunter2")
    key.chmod(0o600)
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok, "mended without a restart"


async def test_over_tls_only_whom_the_owner_trusts_is_asked(engine: Any, tmp_path: Path) -> None:
    authority, ca_file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    async with _encrypted(engine, authority) as url:
        endpoint = endpoint_at(0, url=url, ca_file=ca_file)
        await endpoint.look()
        assert endpoint.available(MODEL_ID).ok
        assert endpoint.at(MODEL_ID) == endpoint.at(MODEL_ID), "so that connections to it are kept"
        stranger = endpoint_at(0, url=url)
        await stranger.look()
        trouble = stranger.trouble(MODEL_ID)
        assert trouble is not None
        assert "certificate is not to be trusted" in trouble.reason
        assert "ca_file" in trouble.remedy
    ca_file.write_text("no certificate")
    damaged = endpoint_at(0, url=url, ca_file=ca_file)
    await damaged.look()
    assert damaged.available(MODEL_ID).reason == "the endpoint 'own' has no authority that can be read"


@contextlib.asynccontextmanager
async def _encrypted(engine: Any, authority: trustme.CA) -> AsyncIterator[str]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    other = type(engine)()

    async def script(request: Any, connection: Any) -> None:
        await connection.answer(200, MODELS)

    other.script = script
    await other.start(context)
    yield f"https://localhost:{other.port}"
    await other.stop()


async def test_nobody_there_is_lost_at_once_and_a_busy_one_only_after_a_few_looks(
    engine: Any, answers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(MODELS)
    endpoint = endpoint_at(engine.port)
    await endpoint.look()
    lost = asyncio.create_task(endpoint.lost(MODEL_ID))

    async def silent(request: Any, connection: Any) -> None:
        await connection.gone()

    engine.script = silent
    monkeypatch.setattr(external, "LOOK_TIMEOUT_S", 0.02)
    for _ in range(MISSES - 1):
        await endpoint.look()
        assert endpoint.available(MODEL_ID).ok
    assert not lost.done()
    await endpoint.look()
    assert await lost == "the endpoint 'own' does not answer in time"
    monkeypatch.undo()
    answers(MODELS)
    await endpoint.look()
    lost = asyncio.create_task(endpoint.lost(MODEL_ID))
    await engine.stop()
    await endpoint.look()
    assert await lost == "the endpoint 'own' does not answer: Connection refused"
    await engine.start()  # on another port: this one stays lost
    await endpoint.look()
    assert not endpoint.available(MODEL_ID).ok


async def test_whoever_waits_for_its_loss_may_leave(engine: Any, answers: Any) -> None:
    answers(MODELS)
    endpoint = endpoint_at(engine.port)
    await endpoint.look()
    waiting = asyncio.create_task(endpoint.lost(MODEL_ID))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await endpoint.look()
    assert endpoint.available(MODEL_ID).ok


# a supervisor over one


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


# a node over a real one


class OwnersEngine:
    """llama.cpp's server as its owner runs it: always on the same port, and no child of the node's."""

    def __init__(self, python: Path, model: Path) -> None:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = (str(python), "-I", str(Path(__file__).with_name("owners_engine.py")))
        self._model = str(model)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            str(self.port),
            self._model,
            THEIRS,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(60):
            assert await self._process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    @property
    def lives(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def busy(self) -> int:
        """Requests it works on, by its own metrics."""
        async with httpx.AsyncClient(base_url=self.url, trust_env=False) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        return int(
            sum(float(li.split()[-1]) for li in lines if li.startswith("llamacpp:requests_processing"))
        )


@pytest.fixture
async def owners(shared_data: Path) -> AsyncIterator[OwnersEngine]:
    environment = EngineEnvironment(shared_data / "engines")
    stored = ModelStore(shared_data / "models").find(load_catalog().require(MODEL_ID))
    if stored is None or not environment.python.exists():
        pytest.skip("the engine and the model are not here yet: run `make fixtures`")
    engine = OwnersEngine(environment.python, stored.path)
    await engine.start()
    yield engine
    await engine.kill()


@pytest.fixture
async def node(porten: Any, owners: OwnersEngine) -> AsyncIterator[Any]:
    """A node without an engine of its own, over the owner's."""
    config = porten.home / "node.toml"
    config.write_text(
        f'[endpoints.own]\nurl = "{owners.url}/v1"\nslots = 2\nmodels = {{ "{MODEL_ID}" = "{THEIRS}" }}\n'
    )
    porten.settings["PORTEN_CONFIG"] = str(config)
    process = await porten.run("--local-only")
    url = json.loads(await porten("status", "--json"))["local_api"]
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        process.client = client
        yield process


def chat(**more: Any) -> dict[str, Any]:
    return {"model": MODEL_ID, "messages": [{"role": "user", "content": "Name a colour."}], **more}


def data_of(stream: str) -> list[str]:
    return [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: ")]


@pytest.mark.engine
async def test_it_answers_streams_and_counts(node: Any, porten: Any) -> None:
    answer = await node.client.post("/v1/chat/completions", json=chat(max_tokens=8, ignore_eos=True))
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-porten-model-digest"] == "external:own"
    assert answer.json()["usage"]["completion_tokens"] == 8

    body = chat(max_tokens=8, stream=True, ignore_eos=True)
    unasked = (await node.client.post("/v1/chat/completions", json=body)).text
    assert unasked.count("\n: usage {") == 1
    *chunks, done = data_of(unasked)
    assert done == "[DONE]"
    assert all(json.loads(chunk)["choices"] for chunk in chunks)
    body["stream_options"] = {"include_usage": True}
    asked = (await node.client.post("/v1/chat/completions", json=body)).text
    assert json.loads(data_of(asked)[-2])["usage"]["completion_tokens"] == 8
    assert ": usage" not in asked

    counted = f'porten_node_tokens_total{{kind="completion",model="{MODEL_ID}"}} 24.0'
    async with asyncio.timeout(10):  # the last is counted a moment after its last byte was sent
        while counted not in (await node.client.get("/metrics")).text:
            await asyncio.sleep(0.02)
    answers = [node.client.post("/v1/chat/completions", json=chat(max_tokens=16)) for _ in range(4)]
    assert {answer.status_code for answer in await asyncio.gather(*answers)} == {200}
    refused = await node.client.post("/v1/chat/completions", json=chat(api_base="http://elsewhere.example"))
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "api_base")
    assert "at own" in await porten("models", "list")
    assert "nothing to fetch" in await porten("models", "pull", MODEL_ID, code=1)


@pytest.mark.engine
async def test_a_client_that_leaves_frees_its_slot_within_a_second(node: Any, owners: OwnersEngine) -> None:
    body = chat(max_tokens=1500, stream=True, ignore_eos=True)
    async with node.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        await anext(answer.aiter_lines())
        assert await owners.busy() == 1
    async with asyncio.timeout(1):
        while await owners.busy():
            await asyncio.sleep(0.02)


@pytest.mark.engine
async def test_lost_in_mid_answer_it_is_offered_no_more_until_it_is_back(
    node: Any, porten: Any, owners: OwnersEngine
) -> None:
    body = chat(max_tokens=1500, stream=True, ignore_eos=True)
    async with node.client.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        await owners.kill()
        rest = [line async for line in lines if line]
    assert json.loads(rest[-1].removeprefix("data: "))["error"]["code"] == "engine_error"

    refused = await node.client.post("/v1/chat/completions", json=chat())
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (503, "no_available_node")
    assert "the endpoint 'own' " in error["message"]
    assert "127.0.0.1" not in error["message"]
    document = json.loads(await porten("status", "--json"))
    assert (document["models"][0]["fits"], document["accepting"]) == (False, False)
    findings = json.loads(await porten("doctor", "--json", code=1))
    (found,) = (finding for finding in findings if finding["subject"] == "endpoint own")
    assert (found["verdict"], "start it" in found["remedy"]) == ("failed", True)

    await owners.start()
    await node.said("the endpoint serves")
    document = json.loads(await porten("status", "--json"))
    assert (document["models"][0]["fits"], document["accepting"]) == (True, True)
    answer = await node.client.post("/v1/chat/completions", json=chat(max_tokens=4))
    assert answer.status_code == 200, answer.text


@pytest.mark.engine
@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_it_lives_on_when_the_node_ends_and_when_the_next_looks_for_strays(
    node: Any, porten: Any, owners: OwnersEngine, end: str
) -> None:
    assert (await node.client.post("/v1/chat/completions", json=chat(max_tokens=4))).status_code == 200
    if end == "stop":
        await porten("stop")
    else:
        node.process.kill()
    await node.ended()
    assert owners.lives
    environment = Path(f"/proc/{owners.pid}/environ").read_bytes()
    assert not any(mark.encode() in environment for mark in (ENGINE_MARK, OWNER_MARK))
    await porten.run("--local-only")
    async with httpx.AsyncClient(base_url=owners.url, trust_env=False) as client:
        assert (await client.get("/health")).status_code == 200
    assert owners.lives
