"""The rules of selection that are compared: the Hub's own code, and three that are simpler.

Owns what a Hub knows of the simulated nodes, which is what a real one does: their last report, and its own
requests since. Each rule decides by the same knowledge.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from benchmarks.routing.fleet import Replica
from hub.choosing import Asked, Chooser
from hub.offers import OfferIndex
from hub.policy import Fleet, NodeFacts, Policy, RegionTree, Sharing, SharingKind, TrustClass
from hub.router import Candidate, ModelState, grade

ORGANISATION = "org_asks"
POLICY = Policy(ORGANISATION, Fleet.ANY, frozenset({"eu"}), TrustClass.VERIFIED)
TREE = RegionTree({"eu": None, **{f"eu-{number}": "eu" for number in range(8)}})


class RuleName(StrEnum):
    """The rules by name."""

    PORTEN = "porten"
    ROUND_ROBIN = "round-robin"
    LEAST_LOAD = "least-load"
    POWER_OF_TWO = "power-of-two"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a rule is asked."""

    model: str
    request: str
    conversation: int


class Rule(Protocol):
    """Chooses the node of each request."""

    def choose(self, wanted: Wanted) -> str | None:
        """The node, or none while all are full."""

    def changed(self, candidate: Candidate, model: str) -> None:
        """What is known of a node is different from now on."""


class View:
    """One Hub's knowledge of all replicas, and its rule. Each node has one replica."""

    def __init__(self, replicas: Iterable[Replica], rule: Callable[["View"], Rule]) -> None:
        self.regions = TREE
        self._candidates: dict[str, Candidate] = {}
        self._models: dict[str, str] = {}
        self.offering: defaultdict[str, list[str]] = defaultdict(list)
        for number, replica in enumerate(replicas):
            self._models[replica.node_id] = replica.model
            self.offering[replica.model].append(replica.node_id)
            self._candidates[replica.node_id] = _candidate(number, replica)
        self.rule = rule(self)
        for node_id, candidate in self._candidates.items():
            self.rule.changed(candidate, self._models[node_id])

    def candidate(self, node_id: str, model: str) -> Candidate | None:
        """A node as this Hub sees it."""
        return self._candidates[node_id] if self._models[node_id] == model else None

    def own(self, organisation_id: str) -> Iterable[str]:  # noqa: ARG002 - all nodes are others'
        """Nobody's: refusals are not simulated."""
        return ()

    @property
    def is_reading(self) -> bool:
        """Nothing changes: nothing is read."""
        return False

    def refile(self, node_id: str, model: str) -> None:
        """Everything stands where it belongs."""
        raise AssertionError(f"{node_id} stands in the wrong place for {model}")

    def sent(self, node_id: str, more: int) -> None:
        """So many requests of this Hub more are open on a node."""
        candidate = self._candidates[node_id]
        self._know(replace(candidate, in_flight=candidate.in_flight + more))

    def reported(self, replica: Replica) -> None:
        """A node says how it is."""
        candidate = self._candidates[replica.node_id]
        self._know(
            replace(
                candidate,
                running=replica.running,
                waiting=len(replica.waiting),
                in_flight_then=candidate.in_flight,
                tokens_per_second=replica.speed,
            )
        )

    def _know(self, candidate: Candidate) -> None:
        node_id = candidate.facts.node_id
        self._candidates[node_id] = candidate
        self.rule.changed(candidate, self._models[node_id])

    def load(self, node_id: str) -> float:
        """Requests on a node for each slot."""
        candidate = self._candidates[node_id]
        return candidate.load / candidate.slots


def _candidate(number: int, replica: Replica) -> Candidate:
    facts = NodeFacts(
        replica.node_id,
        f"org_{number % 50}",
        f"eu-{number % 8}",
        region_confirmed=True,
        trust=TrustClass.TRUSTED if number % 3 else TrustClass.VERIFIED,
        sharing=Sharing(SharingKind.PUBLIC),
    )
    return Candidate(facts, ModelState.READY, slots=replica.slots, tokens_per_second=replica.speed)


class Porten:
    """The Hub's own code, as it runs."""

    def __init__(self, view: View) -> None:
        self._index = OfferIndex()
        self._chooser = Chooser(self._index, view)

    def choose(self, wanted: Wanted) -> str | None:
        """Ask it."""
        found = self._chooser.find(
            Asked(policy=POLICY, model=wanted.model, tie_break=wanted.request, affinity=wanted.conversation)
        )
        return None if found is None else found.node_id

    def changed(self, candidate: Candidate, model: str) -> None:
        """Keep its index, as the registry does."""
        place = grade(candidate)
        node_id = candidate.facts.node_id
        if self._index.is_filed_by(candidate.facts):
            self._index.grade(node_id, model, place)
        elif place is not None:
            self._index.file(candidate.facts, {model: place})


class RoundRobin:
    """Each node in turn."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._turns: Counter[str] = Counter()

    def choose(self, wanted: Wanted) -> str | None:
        """The next."""
        nodes = self._view.offering[wanted.model]
        self._turns[wanted.model] += 1
        return nodes[self._turns[wanted.model] % len(nodes)]

    def changed(self, candidate: Candidate, model: str) -> None:
        """Nothing matters."""


class LeastLoad:
    """The least load for each slot of all nodes; equals by chance."""

    def __init__(self, view: View) -> None:
        self._view = view

    def choose(self, wanted: Wanted) -> str | None:
        """Look at all."""
        chance = random.Random(wanted.request)  # noqa: S311 - a simulation, not secrecy
        return _least(self._view, self._view.offering[wanted.model], chance)

    def changed(self, candidate: Candidate, model: str) -> None:
        """It looks again each time."""


class PowerOfTwo:
    """The less loaded of two that chance draws (Mitzenmacher, IEEE TPDS 2001)."""

    def __init__(self, view: View) -> None:
        self._view = view

    def choose(self, wanted: Wanted) -> str | None:
        """Draw two."""
        chance = random.Random(wanted.request)  # noqa: S311 - a simulation, not secrecy
        nodes = self._view.offering[wanted.model]
        return _least(self._view, chance.sample(nodes, min(2, len(nodes))), chance)

    def changed(self, candidate: Candidate, model: str) -> None:
        """It looks again each time."""


def _least(view: View, nodes: Sequence[str], chance: random.Random) -> str:
    loads = [view.load(node_id) for node_id in nodes]
    least = min(loads)
    return chance.choice([node_id for node_id, load in zip(nodes, loads, strict=True) if load == least])


RULES: Mapping[RuleName, Callable[[View], Rule]] = {
    RuleName.PORTEN: Porten,
    RuleName.ROUND_ROBIN: RoundRobin,
    RuleName.LEAST_LOAD: LeastLoad,
    RuleName.POWER_OF_TWO: PowerOfTwo,
}
