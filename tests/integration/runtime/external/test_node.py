"""A node over a real endpoint: llama.cpp's own server, a process beside the node and never ended by it."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.catalog import load_catalog
from models.store import ModelStore
from runtime.engines import EngineEnvironment
from runtime.process import ENGINE_MARK, OWNER_MARK
from tests.integration.runtime.external.endpoints import MODEL_ID, THEIRS


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
