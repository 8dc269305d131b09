"""A scripted engine on a real socket, a tunnel in memory, and leases without a supervisor."""

import asyncio
import contextlib
import json
import os
import socket
import ssl
import struct
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from runtime.backends.base import Endpoint
from runtime.errors import RuntimeFault
from runtime.forward import Forwarder
from runtime.http_server import AppServer
from runtime.listening import listen_tcp
from runtime.metrics import NodeMetrics
from runtime.relay import Relay
from runtime.snapshot import ModelView, NodeSnapshot
from runtime.supervisor import Lease
from tunnel.channel import memory_pair
from tunnel.identity import (
    NodeCredential,
    Ticket,
    TicketVerifier,
    decode_public_key,
    encode_public_key,
    issue_credential,
    issue_ticket,
)
from tunnel.messages import Open, Status
from tunnel.roles import HubProtocol, NodeProtocol
from tunnel.session import HubSession, NodeSession, OutboundStream

MODEL = "smollm2"


@dataclass
class EngineRequest:
    """What the engine got."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """The engine's end of one connection, for scripts to write on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self, status: int = 200, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in names.items())
        await self.raw(f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode())

    async def stream_head(self) -> None:
        await self.head(200, content_type="text/event-stream", transfer_encoding="chunked")

    async def chunk(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%b\r\n" % (len(data), data))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        await self.head(status, content_type=content_type, content_length=str(len(body)))
        await self.raw(body)

    def reset(self) -> None:
        """Hang up with a RST, as a killed process does."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client hangs up."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[EngineRequest, Connection], Awaitable[None]]


class ScriptedEngine:
    """An engine that does what the test says, one script call a request."""

    def __init__(self) -> None:
        self.script: Script | None = None
        self.requests: list[EngineRequest] = []
        self.connections = 0
        self.close_after_answer = False
        self.failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return self._server.sockets[0].getsockname()[1]

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.failures, self.failures

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._serve(Connection(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # cancelled only by `stop`; asyncio's own callback would report it as an error
        except Exception as failure:  # noqa: BLE001 - shown when the test ends
            self.failures.append(failure)
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _serve(self, connection: Connection) -> None:
        while True:
            request = await self._read(connection.reader)
            self.requests.append(request)
            assert self.script is not None
            await self.script(request, connection)
            if self.close_after_answer:
                return

    async def _read(self, reader: asyncio.StreamReader) -> EngineRequest:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int((await reader.readline()).strip(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        return EngineRequest(method, path, headers, body)


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What carries requests is tried on uvloop too: the daemon runs on it, and it has classes of its own."""
    own = {"asyncio": asyncio.new_event_loop}
    carries_requests = item.path.stem in ("test_engine_http", "test_relay", "test_local_api")
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
        return issue_ticket(key or self.hub_key, Ticket(**{**fields, **changes}))

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
    relay = Relay(forwarder=forwarder, verifier=lambda: verifier, generations=generations, metrics=metrics)
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


class ScriptedHub:
    """A Hub's enrollment endpoints; `answers` are given out in turn by the token endpoint."""

    def __init__(self) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.answers: list[Response | str] = []
        self.asked: list[tuple[str, Any]] = []
        self.tunnel_urls = ["ws://127.0.0.1:1/tunnel"]
        self.hub_id = "hub_a"
        self.region = "eu-de"
        self.interval = 5.0
        self.sign_with = self.key
        self.tokens = {"pjt_good"}
        self.left: list[str] = []
        self.announced: list[str] = []
        self.rotates = True  # an older one does not
        self.public_key = ""
        self.url = ""

    def description(self) -> dict[str, Any]:
        public = encode_public_key(self.key.public_key())
        return {
            "hub_id": self.hub_id,
            "name": "Test",
            "version": "1",
            "public_key": public,
            "api_url": self.url,
            "tunnel_urls": self.tunnel_urls,
            "enroll_url": f"{self.url}/enroll/v1",
        }

    def enrolled(self) -> dict[str, Any]:
        credential = NodeCredential(
            node_id="node_a",
            owner_id="org_a",
            region=self.region,
            trust="verified",
            sharing="private",
            hub_id=self.hub_id,
            public_key=self.public_key,
            issued_at=int(time.time()),
        )
        token = issue_credential(self.sign_with, credential)
        return {"node_id": "node_a", "name": "attic", "credential": token, "hub": self.description()}

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/porten")
        async def well_known() -> dict[str, Any]:
            return self.description()

        @app.post("/enroll/v1/device_authorization")
        async def device(request: Request) -> dict[str, Any]:
            document = await request.json()
            self.asked.append(("device", document))
            self.public_key = document["public_key"]
            return {
                "device_code": "secret-device-code",
                "user_code": "BCDF-GHJK",
                "expires_in": 600,
                "interval": self.interval,
                "verification_uri": f"{self.url}/device",
                "verification_uri_complete": f"{self.url}/device?user_code=BCDF-GHJK",
            }

        @app.post("/enroll/v1/token")
        async def token(request: Request) -> Response:
            self.asked.append(("token", (await request.body()).decode()))
            answer = self.answers.pop(0)
            if isinstance(answer, str):
                if answer == "enrolled":
                    return JSONResponse(self.enrolled())
                return JSONResponse({"error": answer}, 400)
            return answer

        self._add_join_and_leave(app)
        return app

    def _add_join_and_leave(self, app: FastAPI) -> None:
        @app.post("/enroll/v1/join")
        async def join(request: Request) -> Response:
            document = await request.json()
            if document["join_token"] not in self.tokens:
                return JSONResponse({"error": "invalid_join_token"}, 401)
            self.public_key = document["public_key"]
            return JSONResponse(self.enrolled())

        @app.post("/enroll/v1/leave")
        async def leave(request: Request) -> Response:
            token = request.headers["authorization"].removeprefix("Bearer ")
            if token in self.left:
                return Response(status_code=401)
            self.left.append(token)
            return Response(status_code=204)

        @app.post("/enroll/v1/rotate")
        async def rotate(request: Request) -> Response:
            token = request.headers["authorization"].removeprefix("Bearer ")
            if not self.rotates:
                return JSONResponse({"detail": "Not Found"}, 404)
            try:
                jwt.decode(
                    token, decode_public_key(self.public_key), algorithms=["EdDSA"], audience=self.hub_id
                )
            except jwt.InvalidSignatureError:
                return JSONResponse({"error": "invalid_client"}, 401)
            self.announced.append(token)
            return Response(status_code=204)


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


PORTEN = Path(sys.executable).with_name("porten")


class Process:
    """A running `porten` and the lines it has printed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            async with self._changed:
                self.lines.append(line.decode().rstrip())
                self._changed.notify_all()
        async with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    async def said(self, text: str) -> str:
        """Wait for a line that holds `text`, and give it."""
        async with asyncio.timeout(30), self._changed:
            while not (found := [line for line in self.lines if text in line]):
                assert not self._reader.done(), self.output
                await self._changed.wait()
        return found[0]

    async def ended(self) -> int:
        async with asyncio.timeout(30):
            # A wait that was given up must not end the reading: whoever cleans up waits again.
            await asyncio.shield(self._reader)
            return await self.process.wait()


class Porten:
    """Starts `porten` in a home of its own."""

    program = PORTEN

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings: dict[str, str] = {
            "PORTEN_LOCAL_PORT": "0",
            "PORTEN_DATA_DIR": str(home / "data"),
            "PORTEN_YIELD_ON_BATTERY": "false",  # whoever tests on a train tests the rest
        }
        self.started: list[Process] = []

    async def start(self, *arguments: str) -> Process:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PORTEN_")}
        process = await asyncio.create_subprocess_exec(
            PORTEN,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=clean | {"HOME": str(self.home), "XDG_CONFIG_HOME": str(self.home)} | self.settings,
        )
        self.started.append(Process(process))
        return self.started[-1]

    async def __call__(self, *arguments: str, code: int = 0) -> str:
        """Run a command to its end."""
        process = await self.start(*arguments)
        assert await process.ended() == code, process.output
        return process.output

    async def run(self, *arguments: str) -> Process:
        process = await self.start("run", *arguments)
        await process.said("node started")
        return process


@pytest.fixture
async def porten(tmp_path: Path) -> AsyncIterator[Porten]:
    porten = Porten(tmp_path)
    yield porten
    for started in porten.started:
        if started.process.returncode is None:
            started.process.kill()
        await started.ended()
