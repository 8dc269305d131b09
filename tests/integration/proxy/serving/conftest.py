"""A real Hub behind the proxy under test, and nodes that dial in through it."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub import serve
from hub.config import HubConfig
from hub.identity import create_hub_key
from hub.keys import issue_key
from hub.policy import Sharing, TrustClass
from hub.storage.records import Account, Role
from tunnel.client import TunnelClient
from tunnel.identity import NodeIdentity, encode_public_key
from tunnel.messages import Head, ModelStatus, ReplicaStatus, Status, Trailers, Usage
from tunnel.session import InboundStream

PASSWORD = "correct horse battery"
MODEL = "smollm2-135m-instruct"
SSE = Head(status=200, headers=(("content-type", "text/event-stream"),))
USAGE = Trailers(usage=Usage(prompt_tokens=7, cached_tokens=0, completion_tokens=3))

Script = Callable[[InboundStream, bytes], Awaitable[None]]


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for what another task or process brings about; says what never happened."""
    try:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Awaitable[None]]:
    return until


@dataclass
class ScriptedNode:
    """A node that offers one model and follows its script."""

    url: str
    identity: NodeIdentity
    context: ssl.SSLContext
    proxy: str | None = None
    script: Script | None = None
    states: list[str] = field(default_factory=list)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.client = TunnelClient(
            urls=(self.url,),
            identity=self.identity,
            instance_id=f"instance-{self.identity.node_id}",
            handler=self.handle,
            status=self.status,
            on_welcome=lambda _welcome: None,
            on_state=self.states.append,
            ssl_context=self.context,
            proxy=self.proxy,
        )
        self.running = asyncio.create_task(self.client.run())

    def status(self) -> Status:
        model = ModelStatus(
            model=MODEL,
            digest="sha256:feed",
            size_bytes=1,
            on_disk=True,
            state="ready",
            fits=True,
            context_length=512,
            capabilities=("chat",),
            phase="ready",
            done_bytes=1,
            total_bytes=1,
        )
        replica = ReplicaStatus(
            id="r", model=MODEL, state="ready", slots=8, running=0, waiting=0, tokens_per_second=1, phase=""
        )
        return Status(agent="scripted/1", accepting=True, devices=(), replicas=(replica,), models=(model,))

    async def handle(self, stream: InboundStream) -> None:
        body = b""
        while (piece := await stream.receive()) is not None:
            body += piece
        assert self.script is not None
        try:
            await self.script(stream, body)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def stop(self) -> None:
        await self.client.stop()
        await self.running


@dataclass
class Site:
    """A Hub, the front it believes in, and who dials in."""

    server: serve.Server
    front: Any
    authority: Any
    organisation_id: str
    stack: AsyncExitStack
    """Ends the nodes before the proxy, and the proxy before the Hub."""

    @property
    def hub(self) -> Any:
        return self.server.hub

    def here(self, node_id: str) -> Any:
        """The node as the Hub sees it, if it is connected."""
        return self.hub.registry.snapshot().get(node_id)

    async def join_token(self) -> str:
        made = await self.hub.enrollment.create_join_token(self.organisation_id, region="eu-de")
        secret: str = made.secret
        return secret

    async def operator(self) -> Account:
        wish = {"email": "op@acme.example", "password": PASSWORD, "role": Role.OPERATOR}
        account: Account = await self.hub.accounts.create(self.organisation_id, **wish)
        return account

    async def key(self) -> str:
        issued = await issue_key(self.hub.storage, self.organisation_id, name="app", now=time.time())
        return issued.secret

    async def node(self, url: str | None = None, **changes: Any) -> ScriptedNode:
        """Store a node as an approved enrollment does, and let it dial."""
        key = Ed25519PrivateKey.generate()
        stored = await self.hub.storage.nodes.create(
            self.organisation_id,
            name="scripted",
            public_key=encode_public_key(key.public_key()),
            region="eu-de",
            region_confirmed=True,
            trust=TrustClass.TRUSTED,
            sharing=Sharing(),
            machine={},
            now=time.time(),
        )
        return self.dial(NodeIdentity(stored.id, key), url, **changes)

    def dial(self, identity: NodeIdentity, url: str | None = None, **changes: Any) -> ScriptedNode:
        wish = {"context": self.authority.context()} | changes
        node = ScriptedNode(url or self.front.tunnel_url, identity, **wish)
        self.stack.push_async_callback(node.stop)
        return node

    def offered(self, node: ScriptedNode) -> bool:
        candidates = self.hub.registry.candidates(MODEL)
        found = [each for each in candidates if each.facts.node_id == node.identity.node_id]
        return any(each.online and each.reported and each.accepting for each in found)

    async def joined(self, url: str | None = None, **changes: Any) -> ScriptedNode:
        """A node that the Hub may send requests to."""
        node = await self.node(url, **changes)
        await until(lambda: self.offered(node), "the node is offered")
        return node

    @asynccontextmanager
    async def client(self, front: Any | None = None, **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        """A client of one front; it trusts the private authority and nobody's environment."""
        transport = httpx.AsyncHTTPTransport(verify=self.authority.context(), **changes)
        url = (front or self.front).url
        async with httpx.AsyncClient(base_url=url, transport=transport, timeout=60) as client:
            yield client


@pytest.fixture
def public(front: Any) -> tuple[str, str]:
    """The Hub's settings for what it is called outside: public_url and the one of tunnel_urls."""
    return front.url, front.tunnel_url


@pytest.fixture
def settings() -> dict[str, Any]:
    """Further settings of the Hub; a test module may override it."""
    return {}


@asynccontextmanager
async def site_of(config: HubConfig, front: Any, authority: Any) -> AsyncIterator[Site]:
    async with serve.running(config) as server, AsyncExitStack() as stack:
        for code, parent in (("eu", None), ("eu-de", "eu")):
            await server.hub.storage.regions.add(code, parent, code)
        await server.hub.registry.facts.load()
        organisation = await server.hub.storage.organisations.create("Acme", now=time.time())
        await stack.enter_async_context(front.running(server, authority))
        yield Site(server, front, authority, organisation.id, stack)


@pytest.fixture
async def site(
    tmp_path: Path, front: Any, authority: Any, public: tuple[str, str], settings: dict[str, Any]
) -> AsyncIterator[Site]:
    """Runs in a task of its own: what was entered there is left there."""
    data = tmp_path / "hub"
    data.mkdir(mode=0o700)
    ports = {"port": 0, "tunnel_port": 0}
    names = {"public_url": public[0], "tunnel_urls": public[1:]}
    config = HubConfig(**{"data_dir": data, "drain_s": 1} | ports | names | settings)
    create_hub_key(config.key_file)
    ready: asyncio.Future[Site] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with site_of(config, front, authority) as found:
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
def password() -> str:
    return PASSWORD


@pytest.fixture
def sse() -> Any:
    """The pieces that scripts are made of."""

    class Pieces:
        head, usage, model = SSE, USAGE, MODEL

        @staticmethod
        def chunk(text: str) -> bytes:
            return b'data: {"choices": [{"delta": {"content": "%s"}}]}\n\n' % text.encode()

        @classmethod
        async def end(cls, stream: InboundStream) -> None:
            await stream.send(b"data: [DONE]\n\n", fin=True, trailers=cls.usage)

    return Pieces
