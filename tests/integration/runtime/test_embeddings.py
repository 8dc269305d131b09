"""A node whose model embeds: the real engine, through the node's own API."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.catalog import load_catalog
from models.store import ModelStore
from runtime.control_client import ControlClient

pytestmark = pytest.mark.engine

CATALOG = """
[[models]]
id = "vectors"
name = "What a text stands for"
context_length = 256
slots = 4
capabilities = ["embeddings"]

[models.source]
kind = "path"
path = "{weights}"
"""


@pytest.fixture
async def http(porten: Any, shared_data: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    stored = ModelStore(shared_data / "models").find(load_catalog().require("smollm2-135m-instruct"))
    assert stored is not None
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(weights=stored.path))
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_CATALOG": str(catalog),
        "PORTEN_MODELS": "vectors",
    }
    await porten.run("--local-only")
    status = json.loads(await porten("status", "--json"))
    async with httpx.AsyncClient(base_url=status["local_api"], trust_env=False, timeout=60) as client:
        yield client


async def embed(http: httpx.AsyncClient, texts: str | list[str]) -> dict[str, Any]:
    answer = await http.post("/v1/embeddings", json={"model": "vectors", "input": texts})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_list_is_embedded_as_its_texts_are(http: httpx.AsyncClient) -> None:
    texts = [f"Text number {number} of ten." for number in range(10)]
    whole = await embed(http, texts)
    alone = [await embed(http, text) for text in texts]
    assert [item["index"] for item in whole["data"]] == list(range(10))
    for item, single in zip(whole["data"], alone, strict=True):
        assert item["embedding"] == pytest.approx(single["data"][0]["embedding"], abs=0.02)
    assert whole["usage"]["prompt_tokens"] == sum(single["usage"]["prompt_tokens"] for single in alone)


async def test_a_list_that_is_given_up_keeps_nobody_waiting(http: httpx.AsyncClient, porten: Any) -> None:
    await embed(http, "The model is loaded.")
    many = asyncio.create_task(embed(http, ["word " * 200] * 2000))  # minutes of work
    async with ControlClient.connect(porten.home / "data" / "state") as control:
        while not any(replica["running"] for replica in (await control.status())["replicas"]):
            pass
    beside = await embed(http, "Between two parts of the list.")
    assert len(beside["data"]) == 1
    assert not many.done()
    many.cancel()
    await asyncio.gather(many, return_exceptions=True)
    assert len((await embed(http, "After it."))["data"]) == 1


async def test_what_is_too_long_is_the_requests_fault(http: httpx.AsyncClient) -> None:
    asked = {"model": "vectors", "input": ["short", "word " * 3000]}
    answer = await http.post("/v1/embeddings", json=asked)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "context_length_exceeded")
    chat = {"model": "vectors", "messages": [{"role": "user", "content": "Hello"}]}
    refused = await http.post("/v1/chat/completions", json=chat)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unsupported_parameter")
