"""A real Hub on real sockets, and nodes that dial in to it and answer by script."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import openai
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hub import serve
from hub.config import HubConfig
from hub.identity import create_hub_key
from hub.keys import issue_key
from hub.policy import Sharing, TrustClass
from hub.storage.repositories import Storage
from tunnel.client import TunnelClient
from tunnel.errors import ResetCode
from tunnel.identity import NodeIdentity, Ticket, TicketVerifier, encode_public_key, read_credential
from tunnel.messages import Head, ModelStatus, Notice, ReplicaStatus, Status, Trailers, Usage, Welcome
from tunnel.session import InboundStream

MODEL = "tiny"
CATALOG = """
[[models]]
id = "tiny"
name = "Tiny"
context_length = 512
slots = 32
capabilities = ["chat", "completions"]
[models.source]
kind = "file"
path = "/nowhere/tiny.gguf"

[[models]]
id = "vectors"
name = "Vectors"
context_length = 512
capabilities = ["embeddings"]
[models.source]
kind = "file"
path = "/nowhere/vectors.gguf"
"""
JSON = (("content-type", "application/json"), ("x-porten-model-digest", "sha256:feed"))
SSE = (("content-type", "text/event-stream"), ("x-porten-model-digest", "sha256:feed"))
USAGE = Usage(prompt_tokens=7, cached_tokens=2, completion_tokens=3)

Script = Callable[[InboundStream, dict[str, Any]], Awaitable[None]]


def chunk(text: str, **changes: Any) -> bytes:
    """One event of a streamed chat completion."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}],
    }
    return b"data: " + json.dumps(body | changes).encode() + b"\n\n"


async def answer(stream: InboundStream, body: dict[str, Any]) -> None:
    """What an engine would say: three words, streamed or not."""
    if not body.get("stream"):
        message = {"role": "assistant", "content": "one two three"}
        whole = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
        }
        await stream.send_head(Head(status=200, headers=JSON))
        await stream.send(json.dumps(whole).encode(), fin=True, trailers=Trailers(usage=USAGE))
        return
    await stream.send_head(Head(status=200, headers=SSE))
    for word in ("one ", "two ", "three"):
        await stream.send(chunk(word))
        await asyncio.sleep(0)
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        await stream.send(chunk("", choices=[], usage=usage))
    await stream.send(b"data: [DONE]\n\n", fin=True, trailers=Trailers(usage=USAGE))


@dataclass
class ScriptedNode:
    """A node that checks every ticket as a real one does, and then follows its script."""

    node_id: str
    key: Ed25519PrivateKey
    url: str
    hub_key: Ed25519PublicKey
    script: Script = answer
    state: str = "ready"
    slots: int = 32
    model: str = MODEL
    capabilities: tuple[str, ...] = ("chat",)
    instance: str = "first"
    features: tuple[str, ...] = ()
    tickets: dict[str, Ticket] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    welcomes: list[Welcome] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    client: TunnelClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = TunnelClient(
            urls=(self.url,),
            identity=NodeIdentity(self.node_id, self.key),
            instance_id=f"{self.instance}-{self.node_id}",
            handler=self.handle,
            status=self.status,
            on_welcome=self.welcomed,
            on_state=lambda _state: None,
            on_notice=lambda _generation, notice: self.notices.append(notice),
            agent="scripted/1",
            features=self.features,
        )

    def welcomed(self, welcome: Welcome) -> None:
        self.welcomes.append(welcome)
        credential = read_credential(welcome.credential, self.hub_key)
        self.verifier = TicketVerifier(credential, self.hub_key)

    def status(self) -> Status:
        model = ModelStatus(
            model=self.model,
            digest="sha256:feed",
            size_bytes=1,
            on_disk=True,
            state=self.state,
            fits=True,
            context_length=512,
            capabilities=self.capabilities,
            phase="downloading" if self.state == "warming" else self.state,
            done_bytes=1,
            total_bytes=4,
        )
        replica = ReplicaStatus(
            id="r",
            model=self.model,
            state="ready",
            slots=self.slots,
            running=0,
            waiting=0,
            tokens_per_second=1,
            phase="",
        )
        return Status(agent="scripted/1", accepting=True, devices=(), replicas=(replica,), models=(model,))

    async def handle(self, stream: InboundStream) -> None:
        opened = stream.open
        self.tickets[opened.uid] = self.verifier.verify(
            opened.ticket, now=time.time(), request_id=opened.uid, generation=opened.generation
        )
        body = b""
        while (piece := await stream.receive()) is not None:
            body += piece
        request = json.loads(body)
        self.seen.append({"body": body, "path": opened.path, "headers": dict(opened.headers)})
        self.started.set()
        try:
            await self.script(stream, request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def enroll(
    storage: Storage, organisation_id: str, key: Ed25519PrivateKey, region: str | None = "eu-de"
) -> str:
    """Store a node as an approved enrollment does."""
    stored = await storage.nodes.create(
        organisation_id,
        name="scripted",
        public_key=encode_public_key(key.public_key()),
        region=region,
        region_confirmed=True,
        trust=TrustClass.TRUSTED,
        sharing=Sharing(),
        machine={},
        now=time.time(),
    )
    return stored.id


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition that another task or process brings about; says what never happened."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


@dataclass
class Bench:
    """The Hub under test and what is needed to use it."""

    server: serve.Server
    nodes: dict[str, ScriptedNode] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def hub(self):
        return self.server.hub

    @property
    def url(self) -> str:
        return self.hub.addresses.api_local

    async def organisation(self, name: str = "Acme") -> str:
        return (await self.hub.storage.organisations.create(name, now=self.hub.clock())).id

    async def key(self, organisation_id: str, **changes: Any) -> str:
        issued = await issue_key(
            self.hub.storage, organisation_id, name="test", now=self.hub.clock(), **changes
        )
        return issued.secret

    async def node(
        self, organisation_id: str, *, region: str | None = "eu-de", **changes: Any
    ) -> ScriptedNode:
        """Enroll a node, let it dial in, and wait until it is offered."""
        key = Ed25519PrivateKey.generate()
        node_id = await enroll(self.hub.storage, organisation_id, key, region)
        hub_key = self.hub.key.public_key()
        node = ScriptedNode(node_id, key, self.hub.addresses.tunnel_local, hub_key, **changes)
        return await self.dial(node)

    async def dial(self, node: ScriptedNode) -> ScriptedNode:
        """Let a node that is enrolled dial in, and wait until it is offered."""
        self.nodes[node.node_id] = node
        self.tasks.append(asyncio.create_task(node.client.run()))
        await until(lambda: self.offers(node.node_id), "the node is offered")
        return node

    def offers(self, node_id: str) -> bool:
        return any(
            candidate.facts.node_id == node_id
            and candidate.online
            and candidate.reported
            and candidate.accepting
            for candidate in self.hub.registry.candidates(self.nodes[node_id].model)
        )

    def client(self, secret: str, **changes: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=secret, max_retries=0, **changes)

    async def usage(self, count: int) -> list[Any]:
        """The usage records, once there are as many."""
        found: list[Any] = []

        async def enough() -> bool:
            found[:] = await self.hub.storage.usage.list()
            return len(found) >= count

        async with asyncio.timeout(10):
            while not await enough():
                await asyncio.sleep(0.02)
        return found


@pytest.fixture
def settings() -> dict[str, Any]:
    """Changes to the Hub's settings; a test module may override it."""
    return {}


@pytest.fixture
def config(tmp_path, settings, prepared) -> HubConfig:
    catalog = tmp_path / "catalog.toml"
    catalog.write_text(CATALOG)
    data = tmp_path / "hub"
    data.mkdir(mode=0o700)
    prepared.copy_to(data / "hub.db")
    found = HubConfig(data_dir=data, port=0, tunnel_port=0, catalog=(catalog,), drain_s=1, **settings)
    create_hub_key(found.key_file)
    return found


@contextlib.asynccontextmanager
async def bench_on(config: HubConfig) -> AsyncIterator[Bench]:
    async with serving(config) as bench:
        for code, parent in (("eu", None), ("eu-de", "eu"), ("us", None)):
            await bench.hub.storage.regions.add(code, parent, code)
        await bench.hub.registry.facts.load()
        yield bench


@contextlib.asynccontextmanager
async def serving(config: HubConfig) -> AsyncIterator[Bench]:
    """A Hub as it was left."""
    async with serve.running(config) as server:
        bench = Bench(server)
        yield bench
        for node in bench.nodes.values():
            await node.client.stop()
        await asyncio.gather(*bench.tasks)


@pytest.fixture
async def bench(config) -> AsyncIterator[Bench]:
    """Runs in a task of its own: what was entered there is left there."""
    ready: asyncio.Future[Bench] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with bench_on(config) as found:
            ready.set_result(found)
            await done.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    yield ready.result()
    done.set()
    await task


@pytest.fixture
async def http(bench) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=bench.url, timeout=20, trust_env=False) as client:
        yield client


@pytest.fixture
def script():
    """The pieces that scripts are made of."""

    class Pieces:
        json, sse, usage, reset = JSON, SSE, USAGE, ResetCode
        chunk = staticmethod(chunk)
        answer = staticmethod(answer)
        until = staticmethod(until)
        bench_on = staticmethod(bench_on)
        serving = staticmethod(serving)
        enroll = staticmethod(enroll)
        node = ScriptedNode
        model = MODEL

    return Pieces
