"""A real Hub on real sockets, people with accounts in it, machines that ask to join, and their browsers."""

import asyncio
import importlib
import itertools
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pkgutil import iter_modules
from typing import Any

import httpx
import pytest
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import hub.portal
from benchmarks.stacks.portal_client import read_forms
from hub import serve
from hub.admin_tokens import IssuedAdminToken
from hub.composition import Hub
from hub.config import HubConfig
from hub.identity import create_hub_key
from hub.keys import IssuedKey, issue_key
from hub.policy import PRIVATE, TrustClass
from hub.portal import views
from hub.storage.records import Account, Node, Organisation, Role
from tunnel.client import TunnelClient
from tunnel.identity import NodeIdentity, encode_public_key
from tunnel.messages import Status

PASSWORD = "correct horse battery"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
HOME = "Acme"
REGIONS = (("eu", None, "Europe"), ("eu-de", "eu", "Germany"), ("us", None, "United States"))


@dataclass
class Clock:
    """The real time, and what a test adds to it."""

    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class Portal:
    """The Hub under test; organisations and accounts are made when they are first named."""

    server: serve.Server
    clock: Clock
    password: str = PASSWORD
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict)

    @property
    def hub(self) -> Hub:
        return self.server.hub

    @property
    def url(self) -> str:
        return self.hub.addresses.api_local

    async def organisation(self, name: str = HOME) -> Organisation:
        found = await self.hub.storage.organisations.by_name(name)
        return found or await self.hub.storage.organisations.create(name, now=self.clock())

    async def account(self, role: Role, organisation: str = HOME) -> Account:
        email = f"{role}@{organisation}.example".lower().replace(" ", "")
        if (found := await self.hub.storage.accounts.by_email(email)) is not None:
            return found
        home = await self.organisation(organisation)
        return await self.hub.accounts.create(home.id, email=email, password=PASSWORD, role=role)

    async def key(self, organisation: str = HOME, **changes: Any) -> IssuedKey:
        home = await self.organisation(organisation)
        wish = {"name": "assistant", "now": self.clock()} | changes
        return await issue_key(self.hub.storage, home.id, **wish)

    async def admin_token(self, organisation: str = HOME, role: Role = Role.MEMBER) -> IssuedAdminToken:
        home = await self.organisation(organisation)
        return await self.hub.admin_tokens.issue(None, home.id, name="ci", role=role, lifetime_s=3600)

    async def node(self, organisation: str = HOME, **changes: Any) -> Node:
        home, key = await self.organisation(organisation), Ed25519PrivateKey.generate()
        wish = {
            "name": "attic",
            "public_key": encode_public_key(key.public_key()),
            "region": "eu-de",
            "region_confirmed": True,
            "trust": TrustClass.VERIFIED,
            "sharing": PRIVATE,
            "machine": {"hostname": "attic.example", "agent": "porten/1"},
            "now": self.clock(),
        }
        node = await self.hub.storage.nodes.create(home.id, **wish | changes)
        self.keys[node.id] = key
        return node

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for what another task brings about; says what never happened."""
        try:
            async with asyncio.timeout(10):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"never happened: {what}") from None


@dataclass
class Browser:
    """Keeps cookies, reads forms off pages and posts them; follows redirects only when told to."""

    http: httpx.AsyncClient

    async def open(self, path: str, **options: Any) -> httpx.Response:
        return await self.http.get(path, **options)

    async def token(self, path: str = "/") -> str:
        """The token that the forms of a page carry."""
        forms = read_forms((await self.open(path)).text)
        return next(form.fields["csrf_token"] for form in forms if "csrf_token" in form.fields)

    async def post(self, path: str, fields: dict[str, Any] | None = None) -> httpx.Response:
        """Post fields with this session's own token."""
        return await self.http.post(path, data={"csrf_token": await self.token()} | (fields or {}))

    async def save(self, path: str, fields: dict[str, Any] | None = None) -> httpx.Response:
        """Post fields with what the form of the page there says that its reader saw."""
        forms = read_forms((await self.open(path)).text)
        seen = next(form.fields["seen"] for form in forms if "seen" in form.fields)
        return await self.post(path, {"seen": seen} | (fields or {}))

    async def sign_in(self, email: str, password: str = PASSWORD, **fields: str) -> httpx.Response:
        """Fill in the sign-in page and send it."""
        token = await self.token("/login")
        form = {"csrf_token": token, "email": email, "password": password} | fields
        return await self.http.post("/login", data=form)

    @property
    def session(self) -> str | None:
        """The session cookie's value."""
        return self.http.cookies.get("porten-session")


class Markup(HTMLParser):
    """A page as a browser builds it: its elements in order with their attributes, and what they say."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.scripts: list[str | None] = []
        self.said = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name) for name, _ in attrs]
        self.said += "".join(f"\n{value}" for _, value in attrs)
        if tag == "script":
            self.scripts.append(dict(attrs).get("src"))

    def handle_data(self, data: str) -> None:
        self.said += data


@pytest.fixture
def markup() -> type[Markup]:
    return Markup


@pytest.fixture
def settings() -> dict[str, Any]:
    """Changes to the Hub's settings; a test module may override it."""
    return {}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def portal(tmp_path, settings, clock, prepared) -> AsyncIterator[Portal]:
    """Runs in a task of its own: what was entered there is left there."""
    data = tmp_path / "hub"
    data.mkdir(mode=0o700)
    prepared.copy_to(data / "hub.db")
    config = HubConfig(data_dir=data, port=0, tunnel_port=0, drain_s=0, **settings)
    create_hub_key(config.key_file)
    ready: asyncio.Future[Portal] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def hold() -> None:
        async with serve.running(config, clock) as server:
            server.hub.accounts._hasher = CHEAP
            for code, parent, name in REGIONS:
                await server.hub.storage.regions.add(code, parent, name)
            await server.hub.registry.facts.load()
            ready.set_result(Portal(server, clock))
            await done.wait()

    task = asyncio.create_task(hold())
    await asyncio.wait([task, ready], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        await task
    yield ready.result()
    done.set()
    await task


@pytest.fixture
async def visit(portal) -> AsyncIterator[Callable[..., Browser]]:
    """Opens browsers, each with cookies of its own."""
    async with AsyncExitStack() as stack:

        async def open_browser(**options: Any) -> Browser:
            # No TLS here: to read the file of authorities for each browser would take longer than most tests.
            plain = {"base_url": portal.url, "timeout": 20, "trust_env": False, "verify": False}
            client = httpx.AsyncClient(**plain | options)
            return Browser(await stack.enter_async_context(client))

        yield open_browser


@pytest.fixture
def sign_in(portal, visit) -> Callable[..., Awaitable[Browser]]:
    """A browser in which somebody with a role is signed in."""

    async def sign_in(role: Role, organisation: str = HOME) -> Browser:
        browser, account = await visit(), await portal.account(role, organisation)
        assert (await browser.sign_in(account.email)).status_code == 303
        return browser

    return sign_in


@pytest.fixture
async def owner(sign_in) -> Browser:
    return await sign_in(Role.OWNER)


@pytest.fixture
async def operator(sign_in) -> Browser:
    return await sign_in(Role.OPERATOR, "Porten")


@pytest.fixture
def ask(portal, visit):
    """A machine asks to join, over HTTP and from an address of its own; returns what it was told."""
    addresses = itertools.count(1)

    async def ask(name: str = "attic", **said: Any) -> dict[str, Any]:
        key = encode_public_key(Ed25519PrivateKey.generate().public_key())
        body = {"public_key": key, "name": name, "machine": {"hostname": "attic.example"} | said}
        machine = await visit(headers={"x-forwarded-for": f"192.0.2.{next(addresses)}"})
        answer = await machine.http.post("/enroll/v1/device_authorization", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    return ask


@pytest.fixture
def routes() -> set[tuple[str, str]]:
    """Every method and path of the portal's modules, so that none can be forgotten."""
    modules = [
        importlib.import_module(found.name) for found in iter_modules(hub.portal.__path__, "hub.portal.")
    ]
    routers = [module.router for module in modules if hasattr(module, "router") and module is not views]
    return {(method, route.path) for router in routers for route in router.routes for method in route.methods}


@pytest.fixture
async def ids(portal) -> dict[str, str]:
    """What stands for each part of a route's path: things that exist, of the organisation everybody is of."""
    node, key = await portal.node(), (await portal.key()).key
    owner, member = await portal.account(Role.OWNER), await portal.account(Role.MEMBER)
    issued = await portal.hub.members.invite(owner.id, name="Ada", role=Role.MEMBER)
    return {
        "node_id": node.id,
        "key_id": key.id,
        "token_id": (await portal.admin_token()).token.id,
        "account_id": member.id,
        "invitation_id": issued.invitation.id,
        "token": issued.token,
        "reference": "0" * 64,
        "organisation_id": key.organisation_id,
        "code": "eu-de",
        "model": "smollm2-135m-instruct",
    }


@pytest.fixture
def filled(ids) -> Callable[..., str]:
    """Puts what exists, or what is named, into the path of a route."""
    return lambda path, **named: re.sub(r"\{(\w+)(?::\w+)?\}", lambda match: (ids | named)[match[1]], path)


@pytest.fixture
async def connect(portal) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """Lets an enrolled node dial in with a report of its own, and waits until the Hub has it."""
    clients: list[TunnelClient] = []
    tasks: list[asyncio.Task[None]] = []

    async def refuse(_stream: object) -> None:
        raise AssertionError("no request was made")

    async def connect(node: Node, handler: Any = refuse, **report: Any) -> None:
        wish = {"agent": "porten/1", "accepting": True, "devices": (), "replicas": (), "models": ()}
        client = TunnelClient(
            urls=(portal.hub.addresses.tunnel_local,),
            identity=NodeIdentity(node.id, portal.keys[node.id]),
            instance_id="instance",
            handler=handler,
            status=lambda: Status(**wish | report),
            on_welcome=lambda _welcome: None,
            on_state=lambda _state: None,
            agent="porten/1",
        )
        clients.append(client)
        tasks.append(asyncio.create_task(client.run()))
        await portal.until(lambda: node.id in portal.hub.registry.snapshot(), "the node is here")
        await portal.until(lambda: portal.hub.registry.snapshot()[node.id].accepting, "the node reported")

    yield connect
    for client in clients:
        await client.stop()
    await asyncio.gather(*tasks)
