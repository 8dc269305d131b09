"""Stand-ins at the seams of the inference path: storage below, sessions beside. All between is real."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from hub.admission import Admission, Admitted
from hub.api import openai_errors
from hub.calls import Call
from hub.changes import Changes
from hub.choosing import Asked
from hub.dispatch import Dispatch, Dispatcher
from hub.finding import Finder
from hub.keys import mint
from hub.policy import NO_NARROWING, Fleet, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from hub.registry import Registry
from hub.storage.records import ApiKey, UsageRecord
from models.catalog import Catalog, FileSource, ModelSpec
from tunnel.errors import ResetCode, StreamReset
from tunnel.identity import NodeCredential, Ticket, TicketVerifier
from tunnel.messages import Head, ModelStatus, Notice, Open, ReplicaStatus, Status, Trailers, Usage

MODEL = "tiny"
NOW = 1_700_000_000.0


class World:
    """Storage as the Hub sees it, and the nodes' sessions."""

    def __init__(self) -> None:
        self.table: dict[str, NodeFacts] = {}
        self.keys: dict[str, ApiKey] = {}
        self.tree = RegionTree({"eu": None, "eu-de": "eu", "eu-fr": "eu", "us": None})
        self.hub_key = Ed25519PrivateKey.generate()
        self.clock = NOW
        self.turns = 0
        self.error: Exception | None = None
        self.records: list[UsageRecord] = []
        self.changes = Changes()
        self.registry = Registry(self, slots_of=lambda _model: 4)
        self.admission = Admission(self, lambda: self.clock)
        self.changes.subscribe(self.registry.facts.obey)
        self.changes.subscribe(self.admission.obey)
        self.dispatcher = Dispatcher(
            registry=self.registry,
            admission=self.admission,
            catalog=Catalog(
                [ModelSpec(id=MODEL, name="Tiny", source=FileSource(path="/m"), context_length=512)]
            ),
            usage=self,
            hub_key=self.hub_key,
            clock=lambda: self.clock,
            queue_timeout_s=0.05,
            read_error=openai_errors.from_upstream,
            on_record=lambda _record: None,
        )
        self.dispatcher.places.ring_secret = b"the same each time"  # of a key that is new each time
        self.generation = 0
        self.serial = itertools.count(1)

    # storage
    async def _turn(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def node(self, node_id: str) -> NodeFacts | None:
        found = self.table.get(node_id)
        await self._turn()
        return found

    async def nodes(self) -> Sequence[NodeFacts]:
        found = list(self.table.values())
        await self._turn()
        return found

    async def regions(self) -> RegionTree:
        await self._turn()
        return self.tree

    async def by_hash(self, key_hash: str) -> ApiKey | None:
        found = self.keys.get(key_hash)
        await self._turn()
        return found

    def record(self, record: UsageRecord) -> None:
        self.records.append(record)

    # what tests do
    def add_node(self, node_id: str, **changes: Any) -> NodeFacts:
        self.table[node_id] = self.new_node(node_id, **changes)
        return self.table[node_id]

    def new_node(self, node_id: str, **changes: Any) -> NodeFacts:
        facts = NodeFacts(
            node_id=node_id,
            owner_id="org_a",
            region="eu-de",
            region_confirmed=True,
            trust=TrustClass.TRUSTED,
            sharing=Sharing(SharingKind.PRIVATE),
        )
        return replace(facts, **changes)

    def add_key(self, **changes: Any) -> tuple[str, ApiKey]:
        minted = mint()
        key = ApiKey(
            id=f"key_{len(self.keys)}",
            organisation_id="org_a",
            name="test",
            prefix=minted.prefix,
            hash=minted.hash,
            fleet="own",
            regions=frozenset(),
            minimum_trust="community",
            models=None,
            created_at=NOW,
        )
        self.keys[minted.hash] = replace(key, **changes)
        return minted.secret, self.keys[minted.hash]

    def connect(self, node_id: str, **changes: Any) -> "FakeSession":
        session = self.welcome(node_id, **changes)
        self.report(session)
        return session

    def welcome(self, node_id: str, **changes: Any) -> "FakeSession":
        """Connect a node that has not reported yet."""
        self.generation += 1
        facts = self.table[node_id]
        session = FakeSession(node_id, self.generation, self, facts, **changes)
        self.registry.sign(self.generation, facts)
        self.registry.connected(session)  # type: ignore[arg-type]
        return session

    def report(self, session: "FakeSession") -> None:
        self.registry.reported(session, session.report or status())  # type: ignore[arg-type]

    def begin(self, admitted: Admitted, **changes: Any) -> Dispatch:
        return self.dispatcher.begin(self.call(admitted, **changes))

    def asked(self, admitted: Admitted, **changes: Any) -> Asked:
        return Finder(self.dispatcher.places, self.call(admitted, **changes)).asked(admitted)

    def call(self, admitted: Admitted, **changes: Any) -> Call:
        call = Call(
            request_id=changes.pop("request_id", f"req_{next(self.serial)}"),
            admitted=admitted,
            model=MODEL,
            path="/v1/chat/completions",
            capability="chat",
            needs_tools=False,
            body=b"{}",
            narrowing=NO_NARROWING,
            warmup_budget_s=1,
            deadline=self.clock + 60,
        )
        return replace(call, **changes)

    async def close(self) -> None:
        await self.registry.close()


@dataclass
class FakeSession:
    """A session whose node follows a script, and which checks every ticket as a node does."""

    node_id: str
    generation: int
    world: World
    facts: NodeFacts
    answer: Callable[[Open], "FakeStream"] = field(default=lambda request: FakeStream())
    report: Status | None = None
    on_open: Callable[["FakeSession", Open, Ticket], None] | None = None
    refusal: Exception | None = None
    instance_id: str = "instance"
    replaces: int = 0
    remote_address: str = "192.0.2.1"
    agent: str = "test"
    features: tuple[str, ...] = ()
    connected_at: float = NOW
    status: Status | None = None
    draining: bool = False
    close_reason: str | None = None
    opened: list[Open] = field(default_factory=list)
    streams: list["FakeStream"] = field(default_factory=list)
    notices: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        sharing = self.facts.sharing.kind.value if self.facts.sharing else "private"
        credential = NodeCredential(
            node_id=self.node_id,
            owner_id=self.facts.owner_id,
            region=self.facts.region,
            trust=self.facts.trust.label if self.facts.trust else "",
            sharing=sharing,
            hub_id="hub",
            public_key="",
            issued_at=0,
        )
        self.verifier = TicketVerifier(credential, self.world.hub_key.public_key())

    def notice(self, notice: Notice) -> None:
        self.notices.append(notice.draining)

    async def open(self, request: Open) -> "FakeStream":
        if self.refusal is not None:
            raise self.refusal
        ticket = self.verifier.verify(
            request.ticket, now=self.world.clock, request_id=request.uid, generation=request.generation
        )
        if self.on_open is not None:
            self.on_open(self, request, ticket)
        self.opened.append(request)
        self.streams.append(self.answer(request))
        return self.streams[-1]

    async def goaway(self, reason: str, *, reconnect_in: float, deadline: float) -> None:
        self.draining = True
        self.close_reason = reason

    async def close(self, reason: str) -> None:
        self.close_reason = reason
        self.world.registry.disconnected(self)  # type: ignore[arg-type]


class FakeStream:
    """A stream that answers with the given pieces; a ResetCode in their place ends it."""

    def __init__(
        self, *pieces: bytes | ResetCode, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.pieces = list(pieces or (b"hello",))
        self.response = Head(status=status, headers=headers)
        self.trailers: Trailers | None = None
        self.finished = False
        self.sent = b""
        self.was_reset: ResetCode | None = None

    async def send(self, data: bytes, *, fin: bool = False) -> None:
        self.sent += data

    async def head(self) -> Head:
        if self.pieces and isinstance(self.pieces[0], ResetCode):
            raise StreamReset(self.pieces[0])
        return self.response

    async def receive(self) -> bytes | None:
        if not self.pieces:
            return None
        piece = self.pieces.pop(0)
        if isinstance(piece, ResetCode):
            raise StreamReset(piece)
        if not self.pieces:
            self.finished = True
            self.trailers = Trailers(usage=Usage(prompt_tokens=3, cached_tokens=1, completion_tokens=2))
        return piece

    def reset(self, code: ResetCode, reason: str = "") -> None:
        self.was_reset = code


def status(
    *,
    model: str = MODEL,
    state: Any = "ready",
    fits: bool = True,
    accepting: bool = True,
    running: int = 0,
    capabilities: tuple[str, ...] = ("chat",),
) -> Status:
    offered = ModelStatus(
        model=model,
        digest="sha256:00",
        size_bytes=1,
        on_disk=True,
        state=state,
        fits=fits,
        context_length=512,
        capabilities=capabilities,
        phase="ready",
        done_bytes=1,
        total_bytes=4,
    )
    replica = ReplicaStatus(
        id="r1",
        model=model,
        state="ready",
        slots=2,
        running=running,
        waiting=0,
        tokens_per_second=1.0,
        phase="",
    )
    return Status(agent="test/1", accepting=accepting, devices=(), replicas=(replica,), models=(offered,))


@pytest.fixture
async def world():
    found = World()
    yield found
    await found.close()


@pytest.fixture
def fakes():
    """The stand-ins themselves, for tests that script them."""

    class Fakes:
        session = FakeSession
        stream = FakeStream
        world = World
        report = staticmethod(status)

    return Fakes


@pytest.fixture
def own_policy() -> Policy:
    return Policy("org_a", Fleet.OWN)
