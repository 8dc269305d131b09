"""How long the Hub takes to decide, by the number of nodes it may choose from and of those it may not.

Owns the fleets that are decided about and the clock. The registry, its index, the policy and the selection
are the Hub's own; only the sessions are stand-ins that say nothing.

What is measured is processor time of this thread: other programs of the machine are not part of a decision.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from time import thread_time_ns
from typing import Final, cast

from benchmarks.figures.statistics import percentile
from benchmarks.routing.trace import popularity
from hub.affinity import conversation_key
from hub.choosing import Asked
from hub.policy import Fleet, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from hub.registry import Registry
from tunnel.messages import ModelStatus, ReplicaStatus, Status
from tunnel.session import HubSession

ORGANISATION: Final = "org_asks"
HOT: Final = "model-0"
"""A model that every node has loaded."""
_REGIONS: Final = 20
_TREE: Final = RegionTree({"eu": None, "us": None, **{f"eu-{number}": "eu" for number in range(_REGIONS)}})
_ANYWHERE: Final = Policy(ORGANISATION, Fleet.ANY, frozenset(), TrustClass.VERIFIED)
_IN_THE_EU: Final = Policy(ORGANISATION, Fleet.ANY, frozenset({"eu"}), TrustClass.VERIFIED)
_STATUSES: Final = 64  # of which nodes share one: they differ in what is loaded and how busy they are
_READY: Final = 4
_BODY: Final = (
    b'{"model": "model-0", "messages": [{"role": "system", "content": "'
    + b"You are of help. " * 60
    + b'"}, {"role": "user", "content": "%d: how far is it from here to there, and how long does it take?"}]}'
)
_SECRET: Final = b"benchmark"
_US: Final = 1000.0


@dataclass(frozen=True, slots=True)
class FleetSize:
    """How many nodes there are: those that the key may use, and those it may not."""

    permitted: int
    forbidden: int = 0

    def __str__(self) -> str:
        others = f", {self.forbidden:,} forbidden" if self.forbidden else ""
        return f"{self.permitted:,} nodes{others}"


@dataclass(frozen=True, slots=True)
class DecisionPlan:
    """What is measured.

    Attributes:
        fleets: the sizes; the first and the last with the same number of permitted nodes are compared.
        models: each node offers all of them, some of them loaded, `HOT` always.
        decisions: of each kind in a round.
        rounds: on each fleet.
    """

    fleets: tuple[FleetSize, ...] = (
        FleetSize(100),
        FleetSize(1_000),
        FleetSize(10_000),
        FleetSize(100, 900),
        FleetSize(100, 9_900),
    )
    models: int = 200
    decisions: int = 4_000
    rounds: int = 7
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Times:
    """Microseconds of processor time."""

    p50: float
    p99: float


@dataclass(slots=True)
class DecisionCase:
    """One fleet: the times of each round.

    Attributes:
        hot: decisions for a model that all nodes have loaded.
        mixed: decisions for models as they are popular.
        places: to take a place on a node and to give it back, the index included.
    """

    size: FleetSize
    hot: list[Times]
    mixed: list[Times]
    places: list[Times]

    @property
    def key(self) -> str:
        """What programs call the fleet."""
        return f"{self.size.permitted}+{self.size.forbidden}"


class _Quiet:
    """A session that stands and says nothing."""

    draining = False
    instance_id = "instance"
    replaces = 0
    status = None

    def __init__(self, node_id: str) -> None:
        self.node_id = node_id
        self.generation = 1


class _Table:
    """Storage, as the registry asks it."""

    def __init__(self, nodes: Sequence[NodeFacts]) -> None:
        self._nodes = nodes

    async def node(self, node_id: str) -> NodeFacts | None:
        """Nobody asks for one."""
        raise LookupError(node_id)

    async def nodes(self) -> Sequence[NodeFacts]:
        """All of them."""
        return self._nodes

    async def regions(self) -> RegionTree:
        """The tree."""
        return _TREE


async def measure(plan: DecisionPlan, size: FleetSize) -> DecisionCase:
    """Measure one fleet."""
    chance = random.Random(plan.seed)  # noqa: S311 - a benchmark, not secrecy
    case = DecisionCase(size, [], [], [])
    shares = popularity(plan.models)
    names = [model_name(number) for number in range(plan.models)]
    async with _registry(plan, size, chance) as registry:
        for _ in range(plan.rounds):
            case.hot.append(_decide(registry, [HOT] * plan.decisions, chance))
            case.mixed.append(_decide(registry, chance.choices(names, shares, k=plan.decisions), chance))
            case.places.append(_take_places(registry, plan, chance))
            await asyncio.sleep(0)
    return case


def model_name(number: int) -> str:
    """A model's name by its number."""
    return f"model-{number}"


@asynccontextmanager
async def _registry(plan: DecisionPlan, size: FleetSize, chance: random.Random) -> AsyncIterator[Registry]:
    nodes = [*_permitted(size.permitted), *_forbidden(size.forbidden)]
    registry = Registry(_Table(nodes), slots_of=lambda _model: 4)
    await registry.facts.load()
    statuses = [_status(plan, chance) for _ in range(_STATUSES)]
    for number, facts in enumerate(nodes):
        session = cast("HubSession", _Quiet(facts.node_id))
        registry.sign(1, facts)
        registry.connected(session)
        registry.reported(session, statuses[number % _STATUSES])
    yield registry
    await registry.close()


def _permitted(count: int) -> Iterator[NodeFacts]:
    """Public nodes of many owners, all over the region, of three trust classes."""
    trusts = (TrustClass.VERIFIED, TrustClass.TRUSTED, TrustClass.CONFIDENTIAL)
    for number in range(count):
        region, trust = f"eu-{number % _REGIONS}", trusts[number % 3]
        yield _node(f"node_{number}", f"org_{number % 97}", region, trust, SharingKind.PUBLIC)


def _forbidden(count: int) -> Iterator[NodeFacts]:
    """Nodes that are another's alone, abroad, or not trusted enough: a third each."""
    for number in range(count):
        name, owner = f"other_{number}", f"org_{number % 97}"
        yield (
            _node(name, owner, "eu-1", TrustClass.TRUSTED, SharingKind.PRIVATE),
            _node(name, owner, "us", TrustClass.TRUSTED, SharingKind.PUBLIC),
            _node(name, owner, "eu-1", TrustClass.COMMUNITY, SharingKind.PUBLIC),
        )[number % 3]


def _node(name: str, owner: str, region: str, trust: TrustClass, kind: SharingKind) -> NodeFacts:
    return NodeFacts(name, owner, region, region_confirmed=True, trust=trust, sharing=Sharing(kind))


def _status(plan: DecisionPlan, chance: random.Random) -> Status:
    """What a node says: all models, a few of them loaded and more or less busy."""
    popular = chance.choices(range(plan.models), popularity(plan.models), k=_READY - 1)
    loaded = {0, *popular}
    models = tuple(_model(number, is_loaded=number in loaded) for number in range(plan.models))
    replicas = tuple(_replica(number, chance) for number in sorted(loaded))
    return Status(agent="bench", accepting=True, devices=(), replicas=replicas, models=models)


def _model(number: int, *, is_loaded: bool) -> ModelStatus:
    return ModelStatus(
        model=model_name(number),
        digest=None,
        size_bytes=1,
        on_disk=True,
        state="ready" if is_loaded else "cold",
        fits=True,
        context_length=4096,
        capabilities=("chat",),
        phase="",
        done_bytes=0,
        total_bytes=0,
    )


def _replica(number: int, chance: random.Random) -> ReplicaStatus:
    running = chance.randrange(5)
    return ReplicaStatus(
        id=f"replica-{number}",
        model=model_name(number),
        state="ready",
        slots=4,
        running=running,
        waiting=chance.randrange(8) if running == 4 else 0,
        tokens_per_second=chance.choice((20.0, 45.0, 90.0)),
        phase="ready",
    )


def _decide(registry: Registry, models: Sequence[str], chance: random.Random) -> Times:
    """Decide for requests with a conversation each, of keys for everywhere and for one region in turns."""
    taken: list[int] = []
    for number, model in enumerate(models):
        body = _BODY % chance.getrandbits(32)
        request, policy = f"req_{number}", (_ANYWHERE, _IN_THE_EU)[number % 2]
        began = thread_time_ns()
        place = conversation_key(_SECRET, ORGANISATION, model, body)
        found = registry.chooser.find(Asked(policy=policy, model=model, tie_break=request, affinity=place))
        taken.append(thread_time_ns() - began)
        if found is None:
            raise AssertionError(f"nobody serves {model}, which all nodes offer")
    return _times(taken)


def _take_places(registry: Registry, plan: DecisionPlan, chance: random.Random) -> Times:
    """Take a place for a hot model and give it back."""
    taken: list[int] = []
    for number in range(plan.decisions):
        asked = Asked(policy=_IN_THE_EU, model=HOT, tie_break=f"{number}", affinity=chance.getrandbits(64))
        found = registry.chooser.find(asked)
        if found is None:
            raise AssertionError("nobody serves a model that all nodes have loaded")
        began = thread_time_ns()
        registry.occupy(found.node_id, HOT).release()
        taken.append(thread_time_ns() - began)
    return _times(taken)


def _times(taken_ns: Sequence[int]) -> Times:
    return Times(*(percentile(taken_ns, percent) / _US for percent in (50, 99)))
