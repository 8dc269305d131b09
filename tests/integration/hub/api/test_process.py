"""The Hub as a process: what it prints, how it drains, how it ends."""

import asyncio
import contextlib
import signal
import sys

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.keys import issue_key
from hub.storage.repositories import Storage
from tunnel.identity import decode_public_key
from tunnel.messages import Head, Trailers

ASK = {"model": "tiny", "messages": [{"role": "user", "content": "x"}], "stream": True}
RUN = """
import sys
from pathlib import Path
from hub.config import HubConfig
from hub.serve import run
data, catalog, drain = sys.argv[1:]
changes = {"data_dir": Path(data), "catalog": (Path(catalog),), "drain_s": float(drain)}
sys.exit(run(HubConfig(port=0, tunnel_port=0, **changes)))
"""


class Process:
    """A running Hub and one node in it."""

    def __init__(self, process, addresses):
        self.process = process
        self.api = addresses["api"]
        self.tunnel = addresses["tunnel"]

    async def ends(self):
        async with asyncio.timeout(10):
            return await self.process.wait()


@pytest.fixture
async def started(config, request):
    """Starts a Hub; its first line on stdout says where it listens."""
    drain = getattr(request, "param", 5)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN,
        str(config.data_dir),
        str(config.catalog[0]),
        str(drain),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode().split()
    assert line[0] == "listening"
    yield Process(process, dict(word.split("=", 1) for word in line[1:]))
    if process.returncode is None:
        process.kill()
    await process.wait()


@pytest.fixture
async def asking(started, config, script):
    """A client, and a node that another process's writes have enrolled."""
    key = Ed25519PrivateKey.generate()
    async with await Storage.open(config.database) as storage:
        organisation = await storage.organisations.create("Acme", now=1)
        node_id = await script.enroll(storage, organisation.id, key, None)
        issued = await issue_key(storage, organisation.id, name="k", now=1)
    async with httpx.AsyncClient(base_url=started.api, timeout=20, trust_env=False) as client:
        hub_key = decode_public_key((await client.get("/.well-known/porten")).json()["public_key"])
        client.headers["authorization"] = f"Bearer {issued.secret}"
        node = script.node(node_id, key, started.tunnel, hub_key)
        dialling = asyncio.create_task(node.client.run())
        async with asyncio.timeout(10):
            while not (await client.get("/v1/models")).json().get("data"):
                await asyncio.sleep(0.05)
        client.node = node
        yield client
        await node.client.stop()
        await dialling


async def test_sigterm_lets_a_stream_finish_and_takes_nothing_new(started, asking, script):
    go = asyncio.Event()

    async def paused(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("first"))
        await go.wait()
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=script.usage))

    asking.node.script = paused
    lines = []
    async with asking.stream("POST", "/v1/chat/completions", json=ASK) as response:
        async for line in response.aiter_lines():
            if not lines:
                started.process.send_signal(signal.SIGTERM)
                await refused(started.api)
                assert started.process.returncode is None
                go.set()
            lines.append(line)
    assert "data: [DONE]" in lines
    assert await started.ends() == 0


async def refused(url):
    """Wait until nobody is let in any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as fresh:
                    await fresh.get(f"{url}/readyz")
            except httpx.ConnectError:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("started", [1, 60], indirect=True)
async def test_a_stream_that_never_ends_does_not_keep_the_hub(started, asking, script, request):
    async def endless(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("first"))
        await asyncio.Event().wait()

    asking.node.script = endless
    seen = []
    async with asking.stream("POST", "/v1/chat/completions", json=ASK) as response:
        lines = response.aiter_lines()
        seen.append(await anext(lines))
        started.process.send_signal(signal.SIGTERM)
        if request.node.callspec.params["started"] == 60:
            await refused(started.api)
            started.process.send_signal(signal.SIGTERM)  # the second is meant
        with contextlib.suppress(httpx.RemoteProtocolError):
            seen.extend([line async for line in lines])
    assert not any("[DONE]" in line for line in seen)
    assert await started.ends() == 0


async def test_records_of_answers_outlive_the_process(started, asking, config):
    response = await asking.post("/v1/chat/completions", json=ASK)
    assert "[DONE]" in response.text
    started.process.kill()
    await started.ends()
    left = b"".join(path.read_bytes() for path in config.spool_dir.rglob("*") if path.is_file())
    async with await Storage.open(config.database) as storage:
        stored = await storage.usage.list()
    request_id = response.headers["x-request-id"]
    assert request_id.encode() in left or [record.request_id for record in stored] == [request_id]
