"""A node serves a folder of safetensors where it lies, by vLLM for real, from catalog to last token."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

CATALOG = """
[[models]]
id = "mine"
name = "A folder of mine"
format = "safetensors"
context_length = 1024
slots = 4

[models.source]
kind = "path"
path = "{folder}"
"""
QUESTION = {"model": "mine", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 12}


@pytest.fixture
async def node(porten: Any, shared_data: Path, tmp_path: Path) -> Any:
    folder = shared_data / "safetensors" / "smollm2-135m-instruct"
    if not (folder / "config.json").exists():
        pytest.skip("the model is not here as safetensors yet: run `make fixtures-vllm`")
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG.format(folder=folder))
    porten.settings |= {
        "PORTEN_ENGINES_DIR": str(shared_data / "engines"),
        "PORTEN_CATALOG": str(catalog),
        "PORTEN_MODELS": "mine",
    }
    return await porten.run("--local-only")


async def measured(porten: Any) -> dict[str, Any]:
    """The one replica, once its memory was looked at: the node does so every few seconds."""
    async with asyncio.timeout(60):
        while True:
            (replica,) = json.loads(await porten("status", "--json"))["replicas"]
            if replica["measured_bytes"]:
                return dict(replica)


async def test_a_folder_of_safetensors_is_served_where_it_lies(porten: Any, node: Any) -> None:
    status = json.loads(await porten("status", "--json"))
    async with httpx.AsyncClient(base_url=status["local_api"], trust_env=False, timeout=600) as client:
        answer = await client.post("/v1/chat/completions", json=QUESTION)
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "mine"
        assert answer.json()["usage"]["completion_tokens"] > 0
        assert answer.headers["x-porten-model-digest"].startswith("sha256:")
        streamed = await client.post("/v1/chat/completions", json={**QUESTION, "stream": True})
        assert streamed.text.rstrip().endswith("data: [DONE]")
        assert '"choices":[]' not in streamed.text
        too_long = {**QUESTION, "messages": [{"role": "user", "content": "word " * 2000}]}
        refused = await client.post("/v1/chat/completions", json=too_long)
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")
    replica = await measured(porten)
    assert 0.95 * replica["measured_bytes"] <= replica["reserved_bytes"] <= 1.15 * replica["measured_bytes"]
    engines = psutil.Process(node.process.pid).children(recursive=True)
    await porten("stop")
    assert await node.ended() == 0
    assert not any(process.is_running() for process in engines)
