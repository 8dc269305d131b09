"""A tunnel in memory and leases without a supervisor, before a scripted engine; the real `porten`; a Hub."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from runtime.backends.base import Endpoint
from runtime.errors import RuntimeFault
from runtime.forward import Forwarder
from runtime.http_server import AppServer
from runtime.listening import listen_tcp
from runtime.metrics import NodeMetrics
from runtime.relay import Relay
from runtime.snapshot import ModelView, NodeSnapshot
from runtime.supervisor import Lease
from tests.integration.runtime.running import Porten
from tests.integration.runtime.scripted_engine import ScriptedEngine
from tests.integration.runtime.scripted_hub import ScriptedHub
from tunnel.channel import memory_pair
from tunnel.identity import (
    NodeCredential,
    Ticket,
    TicketIssuer,
    TicketVerifier,
    encode_public_key,
    issue_credential,
)
from tunnel.messages import Open, Status
from tunnel.receipts import ReceiptSigner
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.session import HubSession, NodeSession, OutboundStream

MODEL = "smollm2"


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What carries requests is tried on uvloop too: the daemon runs on it, and it has classes of its own."""
    own = {"asyncio": asyncio.new_event_loop}
    carries_requests = item.path.parent.name in ("engine_http", "relay") or item.path.stem == "test_local_api"
    return own | {"uvloop": uvloop.new_event_loop} if carries_requests else own


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    scripted = ScriptedEngine()
    await scripted.start()
    yield scripted
    await scripted.stop()


class FakeLeases:
    """Leases of the scripted engine. `refuse` makes them fail; `held` counts those not given back."""

    def __init__(self, engine: ScriptedEngine) -> None:
        self.endpoint = Endpoint("127.0.0.1", engine.port, headers=(("authorization", "Bearer engine-key"),))
        self.refuse: RuntimeFault | None = None
        self.reloaded: Endpoint | None = None
        self.held = 0
        self.free = asyncio.Event()
        self.budgets: list[float] = []
        self.shares: list[str] = []
        self.failed: list[str] = []
        self.reports: list[tuple[int, float]] = []

    @contextlib.asynccontextmanager
    async def lease(
        self, model_id: str, *, budget_s: float, share: str = "", on_progress: object = None
    ) -> AsyncIterator[Lease]:
        self.budgets.append(budget_s)
        self.shares.append(share)
        if self.refuse is not None:
            raise self.refuse
        self.held += 1
        self.free.clear()
        try:
            yield Lease(
                replica_id="replica-1",
                model_id=model_id,
                model_digest="sha256:feed",
                endpoint=self.endpoint,
                report=lambda tokens, seconds: self.reports.append((tokens, seconds)),
            )
        finally:
            self.held -= 1
            if not self.held:
                self.free.set()

    async def examine(self, replica_id: str) -> None:
        self.failed.append(replica_id)
        self.endpoint = self.reloaded or self.endpoint


@pytest.fixture
def leases(engine: ScriptedEngine) -> FakeLeases:
    return FakeLeases(engine)


def make_snapshot() -> NodeSnapshot:
    view = ModelView(
        model=MODEL,
        digest="sha256:feed",
        size_bytes=1,
        on_disk=True,
        state="ready",
        fits=True,
        context_length=8192,
        capabilities=("chat",),
        phase="ready",
        done_bytes=1,
        total_bytes=1,
    )
    return NodeSnapshot(accepting=True, reason=None, devices=(), replicas=(), models=(view,))


@pytest.fixture
def metrics() -> NodeMetrics:
    return NodeMetrics(make_snapshot)


@pytest.fixture
async def forwarder(leases: FakeLeases) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(leases)
    yield forwarder
    forwarder.close()


@dataclass
class Bridge:
    """A Hub's session with a node whose relay leads to the scripted engine."""

    hub: HubSession
    node: NodeSession
    relay: Relay
    hub_key: Ed25519PrivateKey
    credential: NodeCredential
    generations: list[int]
    numbers: list[int] = field(default_factory=lambda: [0])

    def ticket(self, uid: str, key: Ed25519PrivateKey | None = None, **changes: object) -> str:
        now = int(time.time())
        fields = {
            "node_id": "node_a",
            "owner_id": "org_a",
            "region": "eu-de",
            "organisation_id": "org_a",
            "model": MODEL,
            "request_id": uid,
            "generation": 1,
            "issued_at": now,
            "expires_at": now + 60,
        }
        return TicketIssuer(key or self.hub_key).issue(Ticket(**{**fields, **changes}))

    async def open(self, body: bytes | None = b"{}", **changes: object) -> OutboundStream:
        """Open a stream and send the body, None for none yet."""
        self.numbers[0] += 1
        uid = str(changes.get("uid", f"req_{self.numbers[0]}"))
        fields = {
            "uid": uid,
            "generation": 1,
            "method": "POST",
            "path": "/v1/chat/completions",
            "headers": (("content-type", "application/json"), ("authorization", "Bearer sk-porten-secret")),
            "deadline": time.time() + 60,
            "ticket": self.ticket(uid),
            "content_length": None if body is None else len(body),
        }
        stream = await self.hub.open(Open(**{**fields, **changes}))
        if body is not None:
            await stream.send(body, fin=True)
        return stream


async def read_all(stream: OutboundStream) -> list[bytes]:
    pieces = []
    while (piece := await stream.receive()) is not None:
        pieces.append(piece)
    return pieces


@pytest.fixture
async def bridge(forwarder: Forwarder, metrics: NodeMetrics) -> AsyncIterator[Bridge]:
    hub_key, node_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    credential = NodeCredential(
        node_id="node_a",
        owner_id="org_a",
        region="eu-de",
        trust="verified",
        sharing="private",
        hub_id="hub_a",
        public_key=encode_public_key(node_key.public_key()),
        issued_at=1,
    )
    verifier = TicketVerifier(credential, hub_key.public_key())
    generations = [1]
    signer = ReceiptSigner(node_key, credential, issue_credential(hub_key, credential))
    relay = Relay(
        forwarder=forwarder,
        verifier=lambda: verifier,
        signer=lambda: signer,
        generations=generations,
        metrics=metrics,
    )
    before = asyncio.all_tasks()
    hub_channel, node_channel = memory_pair()
    now = asyncio.get_running_loop().time()
    names = {"node_id": "node_a", "instance_id": "inst", "hub_id": "hub_a"}
    status = Status(agent="t", accepting=True, devices=(), replicas=(), models=())
    hub = HubSession(hub_channel, HubProtocol(generation=1, now=now), **names)
    node = NodeSession(
        node_channel,
        NodeProtocol(generation=1, now=now),
        handler=relay,
        status=lambda: status,
        **names,
    )
    runs = [asyncio.create_task(session.run()) for session in (hub, node)]
    yield Bridge(hub, node, relay, hub_key, credential, generations)
    await hub.close("test over")
    await asyncio.gather(*runs)
    leaked = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if not task.done()}
    leaked = {task for task in leaked if "ScriptedEngine" not in repr(task)}
    assert not leaked, leaked


@pytest.fixture
def read() -> Callable[[OutboundStream], Awaitable[list[bytes]]]:
    return read_all


@pytest.fixture
def sse() -> Callable[..., bytes]:
    def event(text: str = "", **more: object) -> bytes:
        return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}], **more}).encode() + b"\n\n"

    return event


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


@pytest.fixture
async def hub() -> AsyncIterator[ScriptedHub]:
    scripted = ScriptedHub()
    listener = listen_tcp("127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = AppServer(scripted.app(), listener)
    task = asyncio.create_task(server.serve())
    yield scripted
    server.stop(at_once=True)
    await task


@pytest.fixture
async def porten(tmp_path: Path) -> AsyncIterator[Porten]:
    porten = Porten(tmp_path)
    yield porten
    for started in porten.started:
        if started.process.returncode is None:
            started.process.kill()
        await started.ended()
