"""The promise over the running system: a real Hub, nodes that come and go, people who change everything
meanwhile.

Each answer names its node, and each node notes what is opened to it; both are held to the oracle and to the
history of changes. `make test-policy` runs it for five minutes with fifty nodes; `PORTEN_PROOF_S` for
another time.
"""

import asyncio
import contextlib
import logging
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from hub.accounts import AccountService
from hub.keys import hash_secret, issue_key
from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.storage.records import Node, Organisation, Role
from hub.storage.repositories import Storage
from tests.integration.hub.churn.askers import Asked, Askers
from tests.integration.hub.churn.history import History
from tests.integration.hub.churn.machines import Arrival, FakeNode
from tests.integration.hub.churn.people import Browser, CommandLine
from tests.integration.hub.churn.running_hub import OPERATOR, PASSWORD, RunningHub, running_hub
from tests.unit.hub.oracle import NO_WISH, Machine, Wish, plain_key, plain_node
from tunnel.identity import decode_public_key, encode_public_key

PROOF_S = float(os.environ.get("PORTEN_PROOF_S", "300"))
REGIONS = ["eu", "eu-de", "eu-de", "eu-fr", "us", "us", None]
KEY_REGIONS = [[], [], ["eu"], ["eu-de"], ["us", "eu-fr"]]
RETIRES_S = 1.5  # for which a revoked key is still asked with
NAMES = ["Acme", "Beta", "Gamma", "Delta"]
log = logging.getLogger(__name__)


def standing(node: Node) -> Machine | None:
    """What of a node may be chosen: nothing, once it is revoked or while it is on drain."""
    is_out = node.revoked_at is not None or node.draining_since is not None
    return None if is_out else plain_node(node.facts())


@dataclass
class Churn:
    """Everything that runs against one Hub, and what is remembered of it."""

    hub: RunningHub
    hub_key: Ed25519PublicKey
    storage: Storage
    chance: Random
    http: httpx.AsyncClient
    tasks: asyncio.TaskGroup
    history: History
    organisations: list[Organisation] = field(default_factory=list)
    browsers: dict[str, Browser] = field(default_factory=dict)
    nodes: dict[str, FakeNode] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)
    arrivals: list[Arrival] = field(default_factory=list)
    asking: set[asyncio.Task[None]] = field(default_factory=set)
    changes: Counter[str] = field(default_factory=Counter)
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.askers = Askers(self.http, self.chance, self.draw_wish)

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    # --- what is drawn

    def draw_wish(self) -> Wish:
        drawn = self.chance.random()
        if drawn < 0.8 or not self.nodes:
            return NO_WISH
        if drawn < 0.9:
            return Wish(region=self.chance.choice(["eu", "eu-de", "us"]))
        return Wish(node=self.chance.choice(list(self.nodes)))

    def draw_sharing(self) -> Sharing:
        kind = self.chance.choice([*SharingKind])
        named = self.chance.sample(self.organisations, 2) if kind is SharingKind.ORGANISATIONS else []
        return Sharing(kind, frozenset(each.id for each in named))

    def draw_placement(self) -> dict[str, object]:
        return {
            "region": self.chance.choice(REGIONS),
            "trust": self.chance.choice([*TrustClass]),
            "sharing": self.draw_sharing(),
        }

    # --- beginning

    async def begin(self, nodes: int, keys: int) -> None:
        """Make organisations with their owners, nodes and keys, and let them all loose."""
        accounts = AccountService(self.storage, lambda: 1.0)
        for name in NAMES:
            organisation = await self.storage.organisations.create(name, now=1)
            self.organisations.append(organisation)
            email = f"owner@{name.lower()}.example"
            await accounts.create(organisation.id, email=email, password=PASSWORD, role=Role.OWNER)
            self.browsers[organisation.id] = await self.sign_in(email)
        self.browsers["operator"] = await self.sign_in(OPERATOR)
        for _ in range(nodes):
            await self.enroll()
        for number in range(keys):
            await self.make_key(self.organisations[number % len(self.organisations)].id)

    async def sign_in(self, email: str) -> Browser:
        browser = Browser(self.hub.api)
        await browser.sign_in(email, PASSWORD)
        return browser

    async def store_node(self, owner: str, key: Ed25519PrivateKey, **placement: object) -> Node:
        return await self.storage.nodes.create(
            owner,
            name="churned",
            public_key=encode_public_key(key.public_key()),
            region_confirmed=True,
            machine={},
            now=1,
            **placement,
        )

    async def enroll(self) -> None:
        key, announced = Ed25519PrivateKey.generate(), self.now()
        owner = self.chance.choice(self.organisations).id
        stored = await self.store_node(owner, key, **self.draw_placement())
        self.remember(stored, announced)
        node = FakeNode(stored.id, key, (self.hub.tunnel,), self.hub_key, self.chance, self.arrivals)
        self.nodes[stored.id] = node
        self.tasks.create_task(node.live())

    def remember(self, node: Node, announced: float) -> None:
        self.history.node(node.id).changed(standing(node), announced, self.now())

    async def make_key(self, organisation_id: str) -> None:
        """Make a key, in the portal or on the command line, and begin to ask with it."""
        fleet, regions = self.chance.choice([*Fleet, Fleet.ANY]), self.chance.choice(KEY_REGIONS)
        trust, announced = self.chance.choice([TrustClass.COMMUNITY, *TrustClass]), self.now()
        if self.chance.random() < 0.5:
            secret = await self.browsers[organisation_id].create_key(
                fleet=fleet.value, regions=regions, minimum_trust=trust.label
            )
        else:
            options = {"fleet": fleet, "regions": regions, "minimum_trust": trust}
            issued = await issue_key(self.storage, organisation_id, name="churned", now=1, **options)
            secret = issued.secret
        key = await self.storage.keys.by_hash(hash_secret(secret))
        self.history.key(key.id).changed(plain_key(key.policy), announced, self.now())
        self.secrets[key.id], self.owners[key.id] = secret, organisation_id
        self.asking.add(self.tasks.create_task(self.askers.keep_asking(key.id, secret)))

    # --- changing

    def take_node(self, count: int = 1) -> list[str]:
        """Some nodes that nobody else is changing."""
        free = [node_id for node_id in self.nodes if node_id not in self.busy]
        taken = self.chance.sample(free, min(count, len(free)))
        self.busy.update(taken)
        return taken

    async def keep_changing_in_the_portal(self) -> None:
        while not self.over.is_set():
            await self.change_in_the_portal()
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))

    async def change_in_the_portal(self) -> None:
        """An operator or an owner does something, and it counts when the answer is there."""
        drawn = self.chance.random()
        if drawn < 0.06:
            await self.revoke_key(in_portal=True)
            return
        for node_id in self.take_node():
            stored = await self.storage.nodes.get(node_id)
            who = self.chance.choice(["operator", "operator", stored.organisation_id])
            announced = self.now()
            if drawn < 0.12:
                await self.browsers[who].post(f"/nodes/{node_id}/revoke", action="revoke")
            elif drawn < 0.3 or stored.draining_since is not None:
                act = "drain" if stored.draining_since is None else "resume"
                await self.browsers[who].post(f"/nodes/{node_id}/{act}")
            else:
                await self.browsers[who].place(node_id, **self.draw_placement())
            await self.conclude(node_id, announced, "portal")

    async def conclude(self, node_id: str, announced: float, way: str) -> None:
        """A change of a node counts: what it came to is read back. A revoked one is followed by another."""
        acknowledged, stored = self.now(), await self.storage.nodes.get(node_id)
        gone, drained = stored.revoked_at is not None, stored.draining_since is not None
        self.history.node(node_id).changed(standing(stored), announced, acknowledged)
        self.changes[f"{way}: {'revoked' if gone else 'drained' if drained else 'changed'}"] += 1
        if gone:
            self.nodes.pop(node_id).end()
            await self.enroll()
        self.busy.discard(node_id)

    async def revoke_key(self, *, in_portal: bool) -> str | None:
        """End a key and make another; on the command line it counts only once that is seen."""
        free = [key_id for key_id in self.secrets if key_id not in self.busy]
        if not free:
            return None
        key_id = self.chance.choice(free)
        self.busy.add(key_id)
        if not in_portal:
            await self.storage.keys.revoke(key_id, now=2)
            return key_id
        announced = self.now()
        await self.browsers[self.owners[key_id]].post(f"/keys/{key_id}/revoke", action="revoke")
        await self.retire_key(key_id, announced, "portal")
        return None

    async def retire_key(self, key_id: str, announced: float, way: str) -> None:
        self.history.key(key_id).changed(None, announced, self.now())
        self.changes[f"{way}: key revoked"] += 1
        del self.secrets[key_id]
        self.askers.retired[key_id] = self.now() + RETIRES_S
        await self.make_key(self.owners[key_id])

    async def keep_changing_on_the_command_line(self, command_line: CommandLine) -> None:
        while not self.over.is_set():
            announced, taken = self.now(), self.take_node(4)
            for node_id in taken:
                stored = await self.storage.nodes.get(node_id)
                drawn = self.chance.random()
                if drawn < 0.15:
                    await self.storage.nodes.revoke(node_id, now=2)
                elif stored.draining_since is not None:
                    await self.storage.nodes.resume(node_id)
                elif drawn < 0.35:
                    await self.storage.nodes.drain(node_id, now=2)
                else:
                    confirmed = self.chance.random() < 0.9
                    await command_line.write(stored, region_confirmed=confirmed, **self.draw_placement())
            revoked = await self.revoke_key(in_portal=False)
            await command_line.settled()
            for node_id in taken:
                await self.conclude(node_id, announced, "command line")
            if revoked is not None:
                await self.retire_key(revoked, announced, "command line")

    # --- the end

    async def calm_down(self) -> None:
        """Nothing changes any more, and every node is connected."""
        for node in self.nodes.values():
            node.calm.set()
        async with asyncio.timeout(60):
            while not all(node.client and node.client.session for node in self.nodes.values()):
                await asyncio.sleep(0.05)

    async def check_that_it_is_not_shut(self) -> int:
        """With all calm, what is permitted is served and what is not is refused; how many keys are served."""
        served = 0
        for key_id, secret in self.secrets.items():
            key = self.history.key(key_id).now
            nodes = [self.history.node(node_id).now for node_id in self.nodes]
            if not any(self.history.permits(key, node, NO_WISH) for node in nodes):
                assert (await self.askers.ask(key_id, secret, NO_WISH)).code == "no_available_node"
                continue
            async with asyncio.timeout(30):
                while (await self.askers.ask(key_id, secret, NO_WISH)).code != "ok":
                    await asyncio.sleep(0.05)
            served += 1
        return served

    def judge(self) -> list[str]:
        """Everything that broke the promise."""
        asked = {each.request_id: each for each in self.askers.asked}
        answers = [(each, each.node_id, each.end) for each in asked.values() if each.node_id is not None]
        streams = [(asked.get(each.request_id), each.node_id, each.at) for each in self.arrivals]
        return [self.told(*each) for each in [*answers, *streams] if not self.is_right(*each)]

    def is_right(self, request: Asked | None, node_id: str, at: float) -> bool:
        if request is None:  # a node was given what nobody asked for
            return False
        return self.history.allows(request.key_id, node_id, request.wish, request.begin, at)

    def told(self, request: Asked | None, node_id: str, at: float) -> str:
        told = self.history.told(request.key_id, node_id, request.begin, at) if request else ""
        return f"{node_id} at {at} for {request}{told}"


async def churn(hub: RunningHub, seed: int, *, seconds: float, nodes: int, keys: int) -> Churn:
    """Let it all run for so long, then calm down, and give back what is remembered."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with contextlib.AsyncExitStack() as stack:
        storage = await stack.enter_async_context(await Storage.open(hub.database))
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=hub.api, trust_env=False, timeout=60, limits=limits)
        )
        hub_key = decode_public_key((await http.get("/.well-known/porten")).json()["public_key"])
        tree = (await storage.regions.tree()).parents
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        found = Churn(hub, hub_key, storage, Random(seed), http, tasks, History(tree))
        await found.begin(nodes, keys)
        for browser in found.browsers.values():
            stack.push_async_exit(browser)
        changing = [
            tasks.create_task(found.keep_changing_in_the_portal()),
            tasks.create_task(found.keep_changing_in_the_portal()),
            tasks.create_task(found.keep_changing_on_the_command_line(await sentinel(found))),
        ]
        await asyncio.sleep(seconds)
        found.over.set()
        await asyncio.wait(changing)
        found.askers.over.set()
        await asyncio.wait(found.asking)  # until each has its answer, nobody knows whose a stream was
        await found.calm_down()
        assert found.judge() == []
        served = await found.check_that_it_is_not_shut()
        log.info("codes %s, changes %s", dict(found.askers.codes), dict(found.changes))
        log.info("%d streams opened, %d keys served in the end", len(found.arrivals), served)
        assert served > 0
        for node in found.nodes.values():
            node.end()
    return found


async def sentinel(found: Churn) -> CommandLine:
    """An organisation by itself whose one node never connects; see `CommandLine`."""
    home = await found.storage.organisations.create("Sentinel", now=1)
    placement = {"region": "eu", "trust": TrustClass.TRUSTED, "sharing": Sharing()}
    node = await found.store_node(home.id, Ed25519PrivateKey.generate(), **placement)
    issued = await issue_key(found.storage, home.id, name="sentinel", now=1, regions=["eu"])
    headers = {"authorization": f"Bearer {issued.secret}"}
    body = {"model": "tiny", "messages": []}
    return CommandLine(
        found.storage, node, lambda: found.http.post("/v1/chat/completions", json=body, headers=headers)
    )


async def prove(tmp_path, *, seconds: float, nodes: int, keys: int) -> Churn:
    seed = int(os.environ.get("PORTEN_PROOF_SEED") or secrets.randbits(32))
    log.info("seed %d (what is drawn repeats with PORTEN_PROOF_SEED, the order of events does not)", seed)
    async with running_hub(tmp_path) as hub:
        found = await churn(hub, seed, seconds=seconds, nodes=nodes, keys=keys)
    assert found.judge() == []
    assert "Traceback" not in hub.log.read_text()
    assert found.askers.codes["ok"] > 10 * seconds
    assert found.askers.codes["no_available_node"] > 10
    return found


@pytest.fixture(autouse=True)
def only_what_goes_wrong_is_told(caplog):
    """Of sessions that end and nodes that are turned away there are thousands; they are what is tried."""
    for name in ("httpx", "tunnel"):
        caplog.set_level(logging.ERROR, logger=name)


async def test_a_little_churn_breaks_no_promise(tmp_path):
    await prove(tmp_path, seconds=4, nodes=12, keys=12)


@pytest.mark.proof
@pytest.mark.timeout(PROOF_S + 300, method="signal")  # so that the Hub is ended too
async def test_fifty_nodes_that_churn_break_no_promise(tmp_path):
    found = await prove(tmp_path, seconds=PROOF_S, nodes=50, keys=32)
    whats = ("changed", "drained", "revoked", "key revoked")
    kinds = {f"{way}: {what}" for way in ("portal", "command line") for what in whats}
    assert PROOF_S < 120 or kinds <= found.changes.keys(), "not everything was tried"
