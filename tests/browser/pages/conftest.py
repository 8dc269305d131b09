"""People with their organisations, and machines that ask to join and dial in over the real tunnel."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
import playwright.async_api as pw
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.policy import Sharing, TrustClass
from hub.storage.records import Organisation, Role
from tunnel.client import TunnelClient
from tunnel.identity import NodeIdentity, encode_public_key, fingerprint
from tunnel.messages import DeviceStatus, Head, ModelStatus, ReplicaStatus, Status, Trailers, Usage, Welcome
from tunnel.session import InboundStream

PASSWORD = "a password that is long enough"
MODEL = "smollm2-135m-instruct"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"
GIB = 1024**3


async def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition that another task brings about; says what never happened."""
    try:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never happened: {what}") from None


def device(**changes: Any) -> DeviceStatus:
    """A card half full."""
    plain: dict[str, Any] = {
        "id": "cuda:0",
        "kind": "cuda",
        "name": "NVIDIA L40S",
        "memory_total": 48 * GIB,
        "memory_used_by_others": 6 * GIB,
        "memory_budget": 40 * GIB,
        "memory_reserved": 21 * GIB,
    }
    return DeviceStatus(**(plain | changes))


def model(name: str, state: str = "ready", **changes: Any) -> ModelStatus:
    """A model as a node reports it."""
    plain: dict[str, Any] = {
        "model": name,
        "digest": "sha256:feed",
        "size_bytes": GIB,
        "on_disk": True,
        "state": state,
        "fits": True,
        "context_length": 2048,
        "capabilities": ("chat",),
        "phase": state,
        "done_bytes": 0,
        "total_bytes": 0,
    }
    return ModelStatus(**(plain | changes))


REPLICA = ReplicaStatus(
    id="r", model=MODEL, state="ready", slots=4, running=0, waiting=0, tokens_per_second=40, phase=""
)
STATUS = Status(
    agent="porten/0.1.0", accepting=True, devices=(device(),), replicas=(REPLICA,), models=(model(MODEL),)
)


@dataclass
class Machine:
    """A machine with a key of its own: asks to join as `porten login` does, dials in as the daemon does."""

    portal: Any
    name: str
    node_id: str = ""
    status: Status = STATUS
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    welcomes: list[Welcome] = field(default_factory=list)
    device_code: str = ""
    client: TunnelClient | None = None
    running: asyncio.Task[None] | None = None

    @property
    def fingerprint(self) -> str:
        return fingerprint(encode_public_key(self.key.public_key()))

    @property
    def about(self) -> dict[str, Any]:
        card = {"kind": "cuda", "name": "NVIDIA L40S", "memory_total": 48 * GIB}
        return {
            "hostname": self.name,
            "os": "Debian GNU/Linux 12",
            "arch": "x86_64",
            "devices": [card],
            "fingerprint": self.fingerprint,
            "agent": "porten/0.1.0",
        }

    async def ask(self) -> str:
        """Ask to join; returns the code that its screen shows."""
        public_key = encode_public_key(self.key.public_key())
        body = {"public_key": public_key, "name": self.name, "machine": self.about}
        answer = await self.post("/enroll/v1/device_authorization", json=body)
        self.device_code = answer["device_code"]
        return answer["user_code"]

    async def hear(self) -> dict[str, Any]:
        """Ask what was decided; once let in, it knows its own id."""
        form = {"grant_type": GRANT, "device_code": self.device_code}
        answer = await self.post("/enroll/v1/token", data=form)
        self.node_id = answer.get("node_id", "")
        return answer

    async def connect(self) -> None:
        """Dial in, and wait until the Hub knows what this node offers."""
        self.client = TunnelClient(
            urls=(self.portal.hub.addresses.tunnel_local,),
            identity=NodeIdentity(self.node_id, self.key),
            instance_id=f"instance-{self.node_id}",
            handler=self.answer,
            status=lambda: self.status,
            on_welcome=self.welcomes.append,
            on_state=lambda _state: None,
            agent="porten/0.1.0",
        )
        self.running = asyncio.create_task(self.client.run())
        await until(lambda: (live := self.live) and live.models == self.status.models, "the node is known")

    async def post(self, path: str, **content: Any) -> dict[str, Any]:
        async with httpx.AsyncClient(base_url=self.portal.url, trust_env=False) as client:
            return (await client.post(path, **content)).json()

    @property
    def live(self) -> Any:
        return self.portal.hub.registry.snapshot().get(self.node_id)

    async def report(self, **changes: Any) -> None:
        """Tell the Hub of a change, and wait until it has heard."""
        assert self.client is not None
        self.status = msgspec.structs.replace(self.status, **changes)
        self.client.status_changed()
        await until(lambda: self.live.models == self.status.models, "the report arrived")

    async def leave(self) -> None:
        """Hang up, and wait until the Hub has noticed."""
        if self.client is None or self.running is None:
            return
        await self.client.stop()
        await self.running
        await until(lambda: self.live is None, "the Hub noticed that the node is gone")
        self.client = self.running = None

    async def answer(self, stream: InboundStream) -> None:
        """Answer every request with two words, in pieces where that is asked for."""
        asked = b""
        while (piece := await stream.receive()) is not None:
            asked += piece
        usage = Usage(prompt_tokens=1234, cached_tokens=200, completion_tokens=56)
        if json.loads(asked).get("stream"):
            await self.stream(stream, usage)
            return
        message = {"role": "assistant", "content": "Hello there."}
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": MODEL,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }
        await stream.send_head(Head(status=200, headers=(("content-type", "application/json"),)))
        await stream.send(json.dumps(body).encode(), fin=True, trailers=Trailers(usage=usage))

    async def stream(self, stream: InboundStream, usage: Usage) -> None:
        """The same two words as events."""
        await stream.send_head(Head(status=200, headers=(("content-type", "text/event-stream"),)))
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        for word in ("Hello ", "there."):
            said = {"choices": [{"index": 0, "delta": {"content": word}}]}
            await stream.send(b"data: " + json.dumps(said).encode() + b"\n\n")
        last = b"data: " + json.dumps({"choices": [], "usage": counts}).encode() + b"\n\ndata: [DONE]\n\n"
        await stream.send(last, fin=True, trailers=Trailers(usage=usage))


@dataclass
class Team:
    """An organisation with its people and machines."""

    portal: Any
    organisation: Organisation
    domain: str
    machines: list[Machine] = field(default_factory=list)
    signed_in: dict[Role, Any] = field(default_factory=dict)

    async def person(self, role: Role = Role.OWNER) -> str:
        """Make an account; returns its e-mail address."""
        email = f"{role.value}@{self.domain}"
        accounts = self.portal.hub.accounts
        if await self.portal.hub.storage.accounts.by_email(email) is None:
            await accounts.create(self.organisation.id, email=email, password=PASSWORD, role=role)
        return email

    async def visit(self, path: str = "/", role: Role = Role.OWNER, **options: Any) -> pw.Page:
        """Open a page as somebody signed in."""
        if role not in self.signed_in:
            self.signed_in[role] = await self.sign_in(await self.person(role))
        page = await self.portal.open(cookies=self.signed_in[role], **options)
        await page.goto(path)
        return page

    async def sign_in(self, email: str) -> list[dict[str, str]]:
        """Sign in through the form, without the time a browser takes; returns the cookies."""
        async with httpx.AsyncClient(base_url=self.portal.url, trust_env=False) as client:
            token = re.search(r'name="csrf_token" value="(\w+)"', (await client.get("/login")).text)
            assert token is not None
            form = {"email": email, "password": PASSWORD, "csrf_token": token[1]}
            assert (await client.post("/login", data=form)).status_code == 303
            return [
                {"name": name, "value": value, "url": self.portal.url}
                for name, value in client.cookies.items()
            ]

    def stranger(self, name: str) -> Machine:
        """A machine that has yet to ask."""
        self.machines.append(Machine(self.portal, name))
        return self.machines[-1]

    async def machine(self, name: str, region: str | None = "eu-de-fra", **changes: Any) -> Machine:
        """Add a node as an approved enrollment does; it has not dialled in yet."""
        machine = Machine(self.portal, name)
        plain: dict[str, Any] = {
            "region_confirmed": True,
            "trust": TrustClass.TRUSTED,
            "sharing": Sharing(),
            "machine": machine.about,
            "now": self.portal.hub.clock(),
        }
        stored = await self.portal.hub.storage.nodes.create(
            self.organisation.id,
            name=name,
            public_key=encode_public_key(machine.key.public_key()),
            region=region,
            **(plain | changes),
        )
        machine.node_id = stored.id
        await self.portal.hub.registry.facts.load()
        self.machines.append(machine)
        return machine


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def new_team(portal) -> AsyncIterator[Callable[..., Awaitable[Team]]]:
    """Make an organisation that no other test touches; its machines hang up in the end."""
    teams: list[Team] = []

    async def make(name: str | None = None) -> Team:
        name = name or f"Team {len(teams)}"
        made = await portal.hub.storage.organisations.create(name, now=portal.hub.clock())
        teams.append(Team(portal, made, f"team-{len(teams)}.example"))
        return teams[-1]

    yield make
    for team in teams:
        for machine in team.machines:
            await machine.leave()


@pytest_asyncio.fixture(loop_scope="module")
async def team(new_team) -> Team:
    return await new_team()


@pytest.fixture(scope="session")
def pieces():
    """What nodes report, and the words that tests share."""

    class Pieces:
        device = staticmethod(device)
        model = staticmethod(model)
        until = staticmethod(until)
        model_id = MODEL
        password = PASSWORD
        gib = GIB

    return Pieces
