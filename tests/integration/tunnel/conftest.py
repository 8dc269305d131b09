"""Two connected sessions, over memory or over a real websocket, behind one fixture."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from tunnel.channel import memory_pair
from tunnel.client import TunnelClient
from tunnel.gate import Grant, TunnelLimits
from tunnel.identity import NodeIdentity
from tunnel.messages import Command, Event, Notice, Open, Status, Welcome
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.server import TunnelServer
from tunnel.session import HubSession, InboundStream, NodeSession

Handler = Callable[[InboundStream], Awaitable[None]]


def make_open(uid: str = "req_a", **changes: object) -> Open:
    fields = {
        "uid": uid,
        "generation": 1,
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": (("content-type", "application/json"),),
        "deadline": 1e12,
        "ticket": "t",
    }
    return Open(**{**fields, **changes})


def make_status(**changes: object) -> Status:
    fields = {"agent": "test", "accepting": True, "devices": (), "replicas": (), "models": ()}
    return Status(**{**fields, **changes})


async def echo(stream: InboundStream) -> None:
    raise AssertionError("no handler was set")


class Accounts:
    """A NodeAuthenticator over a dict; generations count up."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Ed25519PublicKey, ...]] = {}
        self.generation = 0
        self.admitted: list[tuple[str, str]] = []
        self.signed_by: list[Ed25519PublicKey] = []

    async def public_keys(self, node_id: str) -> tuple[Ed25519PublicKey, ...]:
        return self.keys.get(node_id, ())

    async def admit(self, node_id: str, instance_id: str, key: Ed25519PublicKey) -> Grant:
        self.generation += 1
        self.signed_by.append(key)
        self.admitted.append((node_id, instance_id))
        return Grant(self.generation, f"credential-{self.generation}")


class HubSide:
    """A TunnelServer with everything it said collected in queues."""

    def __init__(self, host_names: tuple[str, ...] = ("127.0.0.1",), **limits: float) -> None:
        self.accounts = Accounts()
        self.sessions: asyncio.Queue[HubSession] = asyncio.Queue()
        self.closed: asyncio.Queue[HubSession] = asyncio.Queue()
        self.statuses: asyncio.Queue[Status] = asyncio.Queue()
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self.server = TunnelServer(
            hub_id="hub_test",
            host_names=host_names,
            authenticator=self.accounts,
            on_session=self.sessions.put_nowait,
            on_status=lambda _, status: self.statuses.put_nowait(status),
            on_closed=self.closed.put_nowait,
            on_event=lambda _, event: self.events.put_nowait(event),
            limits=TunnelLimits(**limits),
        )

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/tunnel"

    def know(self, node_id: str = "node_a") -> NodeIdentity:
        identity = NodeIdentity(node_id, Ed25519PrivateKey.generate())
        self.accounts.keys[node_id] = (identity.private_key.public_key(),)
        return identity


class NodeSide:
    """A TunnelClient with everything it said collected in queues."""

    def __init__(
        self,
        url: str,
        identity: NodeIdentity,
        *,
        more: tuple[str, ...] = (),
        instance_id: str = "inst_1",
        **options: object,
    ) -> None:
        self.handler: Handler = echo
        self.status = make_status()
        self.states: asyncio.Queue[str] = asyncio.Queue()
        self.welcomes: asyncio.Queue[Welcome] = asyncio.Queue()
        self.commands: asyncio.Queue[Command] = asyncio.Queue()
        self.notices: asyncio.Queue[tuple[int, Notice]] = asyncio.Queue()
        self.client = TunnelClient(
            urls=(url, *more),
            identity=identity,
            instance_id=instance_id,
            handler=self._handle,
            status=lambda: self.status,
            on_welcome=self.welcomes.put_nowait,
            on_state=self.states.put_nowait,
            on_command=self.commands.put_nowait,
            on_notice=lambda *told: self.notices.put_nowait(told),
            agent="porten/test",
            **options,
        )
        self._task: asyncio.Task[None] | None = None

    async def _handle(self, stream: InboundStream) -> None:
        await self.handler(stream)

    def start(self) -> None:
        self._task = asyncio.create_task(self.client.run())

    async def reach(self, state: str) -> None:
        while await self.states.get() != state:
            pass

    async def stop(self) -> None:
        await self.client.stop()
        if self._task is not None:
            await self._task


@dataclass
class Link:
    """Both ends of one live session."""

    hub: HubSession
    node: NodeSession
    handler: Handler = echo
    statuses: asyncio.Queue[Status] = field(default_factory=asyncio.Queue)
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    commands: asyncio.Queue[Command] = field(default_factory=asyncio.Queue)
    notices: asyncio.Queue[tuple[int, Notice]] = field(default_factory=asyncio.Queue)
    break_line: Callable[[], Awaitable[None]] = field(default=lambda: asyncio.sleep(0))

    async def handle(self, stream: InboundStream) -> None:
        await self.handler(stream)


@contextlib.asynccontextmanager
async def memory_link() -> AsyncIterator[Link]:
    hub_channel, node_channel = memory_pair()
    now = asyncio.get_running_loop().time()
    names = {"node_id": "node_a", "instance_id": "inst_1", "hub_id": "hub_test"}
    link: Link
    statuses: asyncio.Queue[Status] = asyncio.Queue()
    events: asyncio.Queue[Event] = asyncio.Queue()
    commands: asyncio.Queue[Command] = asyncio.Queue()
    notices: asyncio.Queue[tuple[int, Notice]] = asyncio.Queue()

    async def handle(stream: InboundStream) -> None:
        await link.handler(stream)

    hub = HubSession(
        hub_channel,
        HubProtocol(generation=1, now=now),
        on_status=lambda _, status: statuses.put_nowait(status),
        on_event=lambda _, event: events.put_nowait(event),
        **names,
    )
    node = NodeSession(
        node_channel,
        NodeProtocol(generation=1, now=now),
        handler=handle,
        status=make_status,
        on_command=commands.put_nowait,
        on_notice=lambda *told: notices.put_nowait(told),
        **names,
    )
    link = Link(hub, node, echo, statuses, events, commands, notices, lambda: hub_channel.close(1006, ""))
    runs = [asyncio.create_task(session.run()) for session in (hub, node)]
    try:
        yield link
    finally:
        await hub.close("test over")
        await asyncio.gather(*runs)


@contextlib.asynccontextmanager
async def websocket_link() -> AsyncIterator[Link]:
    hub_side = HubSide()
    await hub_side.server.start("127.0.0.1", 0)
    node_side = NodeSide(hub_side.url, hub_side.know())
    node_side.start()
    try:
        hub = await hub_side.sessions.get()
        await node_side.reach("connected")
        node = node_side.client.session
        assert node is not None

        async def cut() -> None:
            node._channel._connection.transport.abort()

        queues = (hub_side.statuses, hub_side.events, node_side.commands, node_side.notices)
        link = Link(hub, node, echo, *queues, cut)
        node_side.handler = link.handle
        yield link
    finally:
        await node_side.stop()
        await hub_side.server.close()


@pytest.fixture(params=["memory", "websocket"])
async def link(request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    before = asyncio.all_tasks()
    async with (memory_link if request.param == "memory" else websocket_link)() as connected:
        yield connected
    leaked = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    assert not leaked, leaked


@pytest.fixture
async def hub_side() -> AsyncIterator[HubSide]:
    side = HubSide(handshake_timeout_s=0.3)
    await side.server.start("127.0.0.1", 0)
    yield side
    await side.server.close()


@pytest.fixture
def request_open() -> Callable[..., Open]:
    return make_open


@pytest.fixture
def new_node() -> Callable[..., NodeSide]:
    return NodeSide


@pytest.fixture
def new_hub() -> Callable[..., HubSide]:
    return HubSide
