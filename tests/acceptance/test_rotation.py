"""A running node changes its key: streams that it answers go on, and the old key is worth nothing."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import psutil
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from benchmarks.machine.processes import ManagedProcess, ProcessFailed
from benchmarks.stacks.stack import MODEL, Stack, command
from tunnel.dial import Dialler
from tunnel.errors import HandshakeRefused
from tunnel.identity import NodeIdentity, encode_public_key

pytestmark = pytest.mark.asyncio(loop_scope="module")
CHAT = "/chat/completions"
TOKENS = 800
LONG = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Write a very long story."}],
    "max_tokens": TOKENS,
    "stream": True,
    "stream_options": {"include_usage": True},
    "ignore_eos": True,
}
SHORT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
IN_USE = "The node uses its new key; the old one is worth nothing."


def key_file(stack: Stack) -> Path:
    return stack.node.data / "identity" / "node.key"


def public_key(pem: bytes) -> str:
    return encode_public_key(load_pem_private_key(pem, None).public_key())


def stored(stack: Stack) -> tuple[str, str | None, int]:
    """The node's key, its next one and its generation, as the Hub's database has them."""
    with sqlite3.connect(f"file:{stack.hub.data / 'hub.db'}?mode=ro", uri=True) as database:
        query = "SELECT public_key, next_public_key, generation FROM nodes"
        [row] = database.execute(query).fetchall()
    return row


async def events_of(http: httpx.AsyncClient) -> AsyncIterator[str]:
    async with http.stream("POST", CHAT, json=LONG) as response:
        assert response.status_code == 200, await response.aread()
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


async def test_a_stream_outlives_the_key_under_which_it_began(http: httpx.AsyncClient, stack: Stack) -> None:
    old = key_file(stack).read_bytes()
    daemon = psutil.Process(stack.node.process.pid)
    _, _, generation = stored(stack)
    lines: list[str] = []
    async for line in events_of(http):
        lines.append(line)
        if len(lines) == 5:
            assert IN_USE in await stack.node.cli("rotate-key")
            assert stored(stack) == (public_key(key_file(stack).read_bytes()), None, generation + 1)
            status = json.loads(await stack.node.cli("status", "--json"))
            assert sum(replica["running"] for replica in status["replicas"]) == 1, (
                "it is still being answered"
            )
            answer = await http.post(CHAT, json=SHORT)  # the new session takes what is new meanwhile
            assert answer.status_code == 200, answer.text
    assert lines[-1] == "[DONE]"
    assert json.loads(lines[-2])["usage"]["completion_tokens"] == TOKENS
    new = key_file(stack).read_bytes()
    assert new != old
    assert key_file(stack).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in key_file(stack).parent.iterdir()) == [
        "credential.jwt",
        "hub.json",
        "node.key",
    ]
    assert (daemon.is_running(), daemon.pid) == (True, stack.node.process.pid)
    assert "days old" in await stack.node.cli("doctor")


async def test_the_old_key_is_worth_nothing_afterwards(http: httpx.AsyncClient, stack: Stack) -> None:
    old = load_pem_private_key(key_file(stack).read_bytes(), None)
    assert IN_USE in await stack.node.cli("rotate-key")
    facts = json.loads((key_file(stack).parent / "hub.json").read_text())
    dialler = Dialler(
        identity=NodeIdentity(facts["node_id"], old),
        instance_id="thief",
        agent="",
        ssl_context=None,
        proxy=None,
        max_streams=1,
    )
    with pytest.raises(HandshakeRefused) as refused:
        async with dialler.dial(facts["tunnel_urls"][0]):
            pass
    assert refused.value.status == 401
    assert (await http.post(CHAT, json=SHORT)).status_code == 200


async def test_a_node_that_does_not_run_uses_its_new_key_from_its_next_start(
    client: openai.AsyncOpenAI, stack: Stack
) -> None:
    await stack.node.stop()
    before = stored(stack)[0]
    assert "the next `porten run` uses it" in await stack.node.cli("rotate-key")
    assert (stored(stack)[0], stored(stack)[1] is None) == (before, False)
    await stack.node.start()
    assert stored(stack)[:2] == (public_key(key_file(stack).read_bytes()), None)
    assert stored(stack)[0] != before
    answer = await client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Hi"}], max_tokens=2
    )
    assert answer.choices


async def test_a_hub_that_is_away_leaves_the_node_as_it_is_until_the_command_comes_again(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    before = stored(stack)[0]
    said = stack.node.process.lines_so_far()
    await stack.hub.stop()
    with pytest.raises(ProcessFailed, match="cannot be reached"):
        await stack.node.cli("rotate-key")
    await stack.hub.start()
    await stack.node.connected(after=said)
    assert stored(stack)[:2] == (before, None)
    assert "the change to another one is not finished" in await stack.node.cli("doctor")
    assert IN_USE in await stack.node.cli("rotate-key")
    assert stored(stack)[0] != before
    assert (await http.post(CHAT, json=SHORT)).status_code == 200


async def test_a_node_killed_before_it_hears_of_its_key_goes_over_when_it_starts(
    http: httpx.AsyncClient, stack: Stack
) -> None:
    before = stored(stack)[0]
    psutil.Process(stack.node.process.pid).suspend()
    argv = [command("porten"), "rotate-key"]
    rotating = ManagedProcess("rotate-key", argv, log=stack.node.log, environment=stack.node.environment)
    await rotating.start()
    async with asyncio.timeout(60):
        while stored(stack)[1] is None:
            assert rotating.running, rotating.output
            await asyncio.sleep(0.01)
    await rotating.kill()
    await stack.node.process.kill()
    await stack.node.start()
    assert stored(stack)[:2] == (public_key(key_file(stack).read_bytes()), None)
    assert stored(stack)[0] != before
    assert (await http.post(CHAT, json=SHORT)).status_code == 200
    assert not key_file(stack).with_name("next.key").exists()
