"""No prompt, completion, key or password is in any file that Hub, node or engine write."""

import json

import httpx
import openai
import pytest

from benchmarks.stacks.stack import MODEL, Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROMPT = "zanzibar-otter-41873"
COMPLETION = "quokka-lighthouse-90125"


async def test_nothing_that_was_said_is_kept(
    http: httpx.AsyncClient, client: openai.AsyncOpenAI, stack: Stack
) -> None:
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"Repeat {PROMPT}"}],
        "max_tokens": 40,
        "grammar": f'root ::= "{COMPLETION}"',
    }
    answer = await http.post("/chat/completions", json=body)
    assert answer.json()["choices"][0]["message"]["content"] == COMPLETION
    await http.post("/chat/completions", json=body | {"stream": True})
    await http.post("/chat/completions", content=json.dumps(body)[:-1])
    await http.post("/chat/completions", json=body | {"model": PROMPT})
    await http.post("/chat/completions", json=body | {"messages": PROMPT})
    await http.post("/chat/completions", json=body, headers={"Authorization": f"Bearer {stack.api_key}x"})
    await stack.node.stop()
    await http.post("/chat/completions", json=body)
    await stack.hub.stop()
    secrets = {
        "prompt": PROMPT,
        "completion": COMPLETION,
        "key": stack.api_key,
        "password": stack.hub.password,
    }
    files = {path: path.read_bytes() for path in stack.directory.rglob("*") if path.is_file()}
    for path, content in files.items():
        for what, secret in secrets.items():
            assert secret.encode() not in content, f"the {what} is in {path}"
    # Not by silence: both logs and the database are among what was searched.
    assert all(files[log] for log in (stack.hub.log, stack.node.log))
    assert any(path.suffix == ".db" for path in files)
