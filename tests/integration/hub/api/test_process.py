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
data, catalog, drain, port, tunnel_port = sys.argv[1:]
changes = {"data_dir": Path(data), "catalog": (Path(catalog),), "drain_s": float(drain)}
sys.exit(run(HubConfig(port=int(port), tunnel_port=int(tunnel_port), **changes)))
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

    async def cleared_away(self):
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


async def start(config, *, drain=5, port=0, tunnel_port=0):
    """Start a Hub; its first line on stdout says where it listens."""
    arguments = (config.data_dir, config.catalog[0], drain, port, tunnel_port)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUN, *map(str, arguments)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        line = (await process.stdout.readline()).decode().split()
    assert line[0] == "listening"
    return Process(process, dict(word.split("=", 1) for word in line[1:]))


@pytest.fixture
async def started(config, request):
    found = await start(config, drain=getattr(request, "param", 5))
    yield found
    await found.cleared_away()


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


async def test_whoever_came_just_before_the_end_is_still_answered(started):
    host, _, port = started.api.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /readyz HTTP/1.1\r\n")
    async with httpx.AsyncClient(base_url=started.api, trust_env=False) as later:
        await later.get("/healthz")  # so the one before it has been let in
    started.process.send_signal(signal.SIGTERM)
    await refused(started.api)
    writer.write(b"Host: hub\r\n\r\n")
    answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"connection: close" in answer
    assert await started.ends() == 0
    writer.close()


async def test_whoever_says_nothing_does_not_keep_the_hub(started):
    host, _, port = started.api.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with httpx.AsyncClient(base_url=started.api, trust_env=False) as later:
        await later.get("/healthz")
    started.process.send_signal(signal.SIGTERM)
    assert await reader.read() == b""
    assert await started.ends() == 0
    writer.close()


@pytest.mark.parametrize("started", [60], indirect=True)
async def test_a_restart_under_64_streams_truncates_none_and_the_successor_has_the_node(
    started, asking, config, script
):
    """The successor starts on the same ports and the same data while the first still finishes."""
    go, all_began, begun = asyncio.Event(), asyncio.Event(), []

    async def paused(stream, body):
        await stream.send_head(Head(status=200, headers=script.sse))
        await stream.send(script.chunk("first"))
        begun.append(stream.id)
        if len(begun) == 64:
            all_began.set()
        await go.wait()
        await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=script.usage))

    async def ask():
        async with wide.stream("POST", "/v1/chat/completions", json=ASK) as response:
            return [line async for line in response.aiter_lines()], response.headers["x-request-id"]

    asking.node.script, asking.node.slots = paused, 64
    limits = httpx.Limits(max_connections=80)
    async with httpx.AsyncClient(
        base_url=started.api, headers=asking.headers, timeout=60, limits=limits, trust_env=False
    ) as wide:
        asked = [asyncio.create_task(ask()) for _ in range(64)]
        await all_began.wait()
        started.process.send_signal(signal.SIGTERM)
        await refused(started.api)
        ports = [int(url.rpartition(":")[2]) for url in (started.api, started.tunnel)]
        successor = await start(config, port=ports[0], tunnel_port=ports[1])
        try:
            async with asyncio.timeout(20), httpx.AsyncClient(trust_env=False) as fresh:
                fresh.headers["authorization"] = asking.headers["authorization"]
                while not (await fresh.get(f"{successor.api}/v1/models")).json().get("data"):
                    await asyncio.sleep(0.05)
                assert started.process.returncode is None, "the first still finishes its streams"
                go.set()
                answer = await fresh.post(f"{successor.api}/v1/chat/completions", json=ASK)
                assert "[DONE]" in answer.text
            answers = await asyncio.gather(*asked)
            assert all("data: [DONE]" in lines for lines, _ in answers)
            assert await started.ends() == 0
            async with await Storage.open(config.database) as storage:
                recorded = {record.request_id for record in await storage.usage.list()}
            assert {request_id for _, request_id in answers} <= recorded
        finally:
            await successor.cleared_away()


async def refused(url):
    """Wait until nobody is let in any more."""
    async with asyncio.timeout(10):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as fresh:
                    await fresh.get(f"{url}/readyz")
            except httpx.ConnectError:
                return
            except httpx.ReadError:  # it knocked in the moment in which the door was closed
                pass
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
