"""Which nodes offer a model, sorted by who may reach them and how soon they would answer.

Owns that order and nothing of its truth: it narrows what is looked at, and whoever chooses asks
:func:`hub.policy.permits` for each node once more. Pure and synchronous; the registry tells it of every
change.

Nodes stand on a *leaf* for each model: those that one :class:`Access` makes equal in the eyes of every
policy, whoever owns them. Within a leaf they stand by their grade (:func:`hub.router.grade`), each grade a
list of places on the ring in ascending order. So the cost of a choice depends on the number of leaves that
a key may use, which regions and trust classes bound, and not on the number of nodes, allowed or not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

from hub.affinity import RING_MASK, distance, position
from hub.policy import (
    NO_NARROWING,
    PRIVATE,
    Fleet,
    Narrowing,
    NodeFacts,
    Policy,
    RegionTree,
    Sharing,
    SharingKind,
    TrustClass,
    permits,
)
from hub.router import PENDING
from hub.shelves import Leaf, LeafKey, Scope, Shelf, successors

_PUBLIC = "*"
_MAX_SCOPES = 256
"""Kinds of keys whose leaves are remembered; beyond it all are worked out again."""

_EVERY_MODEL = ""
"""Where nodes stand that have yet to say what they offer."""


@dataclass(frozen=True, slots=True)
class Access:
    """What of a node's facts decides who may use it.

    Attributes:
        reaches: by what relation keys come to it: its owner, organisations it is lent to, everybody.
        leaf: its confirmed region, if any, and its trust class.
    """

    reaches: tuple[str, ...]
    leaf: LeafKey


def access_of(facts: NodeFacts) -> Access | None:
    """How a node is reached; ``None`` for one that serves nobody."""
    if facts.revoked or not isinstance(facts.trust, TrustClass) or not isinstance(facts.sharing, Sharing):
        return None
    region = facts.region if facts.region_confirmed is True else None
    return Access((_own(facts.owner_id), *_lent(facts.sharing)), (region, facts.trust))


def _own(organisation_id: str) -> str:
    return f"={organisation_id}"


def _lent(sharing: Sharing) -> tuple[str, ...]:
    if sharing.kind is SharingKind.PUBLIC:
        return (_PUBLIC,)
    if sharing.kind is SharingKind.ORGANISATIONS:
        return tuple(f">{organisation}" for organisation in sharing.organisations)
    return ()


def _reaches(policy: Policy) -> tuple[str, ...]:
    own, lent = _own(policy.organisation_id), f">{policy.organisation_id}"
    return {Fleet.OWN: (own,), Fleet.SHARED: (own, lent)}.get(policy.fleet, (own, lent, _PUBLIC))


@dataclass(slots=True)
class _Filed:
    """Where a node stands, and by what facts."""

    facts: NodeFacts
    place: int
    access: Access
    grades: dict[str, int] = field(default_factory=dict)


class OfferIndex:
    """The leaves of all models."""

    def __init__(self) -> None:
        self._models: defaultdict[str, dict[str, Shelf]] = defaultdict(dict)
        self._names: defaultdict[str, set[str]] = defaultdict(set)
        self._filed: dict[str, _Filed] = {}
        self._at: dict[int, str] = {}
        self._tree = RegionTree()
        self._scopes: dict[tuple[object, ...], Scope] = {}

    # --- keeping it --------------------------------------------------------------------------------------

    def file(self, facts: NodeFacts, grades: Mapping[str, int]) -> None:
        """Let a node stand where its facts and these grades put it, by model, and nowhere else."""
        access, filed = access_of(facts), self._filed.get(facts.node_id)
        if filed is not None and filed.access != access:
            self.remove(facts.node_id)
            filed = None
        if access is None:
            return
        if filed is None:
            filed = self._filed[facts.node_id] = _Filed(facts, self._place(facts.node_id), access)
        filed.facts = facts
        for model in filed.grades.keys() - grades.keys():
            self.grade(facts.node_id, model, None)
        for model, grade in grades.items():
            self.grade(facts.node_id, model, grade)

    def grade(self, node_id: str, model: str, grade: int | None) -> None:
        """Change the place of a node that stands here for one model; ``None`` takes it away."""
        filed = self._filed.get(node_id)
        if filed is None or (old := filed.grades.get(model)) == grade:
            return
        for reach in filed.access.reaches:
            self._move(model, reach, filed, old, grade)
        if grade is None:
            del filed.grades[model]
        else:
            filed.grades[model] = grade

    def file_pending(self, facts: NodeFacts) -> None:
        """Let a node stand where those stand that have yet to say what they offer.

        One on drain is not waited for, whatever it will say.
        """
        self.file(facts, {_EVERY_MODEL: PENDING} if facts.draining is False else {})

    def remove(self, node_id: str) -> None:
        """Let a node stand nowhere."""
        filed = self._filed.pop(node_id, None)
        if filed is None:
            return
        for model, grade in filed.grades.items():
            for reach in filed.access.reaches:
                self._move(model, reach, filed, grade, None)
        del self._at[filed.place]

    def _place(self, node_id: str) -> int:
        place = position(node_id)
        while place in self._at:  # one chance in 2^64 for each pair, and yet nobody may vanish for it
            place = (place + 1) & RING_MASK
        self._at[place] = node_id
        return place

    def _move(self, model: str, reach: str, filed: _Filed, old: int | None, new: int | None) -> None:
        shelves = self._models[model]
        shelf = shelves.get(reach)
        if shelf is None:
            shelf = shelves[reach] = Shelf()
            self._names[reach].add(model)
        shelf.move(filed.access.leaf, filed.place, old, new)
        if not shelf.leaves:
            del shelves[reach]
            self._forget_name(reach, model)
            if not shelves:
                del self._models[model]

    def _forget_name(self, reach: str, model: str) -> None:
        names = self._names[reach]
        names.discard(model)
        if not names:
            del self._names[reach]

    # --- looking -----------------------------------------------------------------------------------------

    def grade_of(self, node_id: str, model: str) -> int | None:
        """The grade under which a node stands for a model."""
        filed = self._filed.get(node_id)
        return None if filed is None else filed.grades.get(model)

    def is_filed_by(self, facts: NodeFacts) -> bool:
        """Whether a node stands where these very facts put it."""
        filed = self._filed.get(facts.node_id)
        return filed is not None and filed.facts is facts

    def leaves(
        self, policy: Policy, model: str, regions: RegionTree, narrowing: Narrowing = NO_NARROWING
    ) -> list[Leaf]:
        """What a key may use of the nodes that offer a model."""
        shelves = self._models.get(model)
        if not shelves or not _is_readable(policy):
            return []
        scope = self._scope(policy, regions, narrowing)
        found: list[Leaf] = []
        for reach in _reaches(policy):
            if (shelf := shelves.get(reach)) is not None:
                found += shelf.permitted(scope, partial(_allows, policy, regions, narrowing))
        return found

    def by_model(
        self, policy: Policy, regions: RegionTree, narrowing: Narrowing = NO_NARROWING, model: str = ""
    ) -> Iterator[tuple[str, list[Leaf]]]:
        """What a key may use, model by model, by their names; of one model alone where one is named.

        For lists: no pools are made for it. What it costs grows with what the key's reaches have, and with
        nobody else's models or nodes: how long a list takes would else tell of them.
        """
        if not _is_readable(policy):
            return
        reaches = _reaches(policy)
        scope = self._scope(policy, regions, narrowing)
        allows = partial(_allows, policy, regions, narrowing)
        names = {name for reach in reaches for name in self._names.get(reach, ())} - {_EVERY_MODEL}
        for name in sorted(names) if not model else [model]:
            shelves = self._models.get(name, {})
            reached = (shelf for reach in reaches if (shelf := shelves.get(reach)) is not None)
            if found := [leaf for shelf in reached for leaf in shelf.allowed(scope, allows)]:
                yield name, found

    def pending(self, policy: Policy, regions: RegionTree, narrowing: Narrowing = NO_NARROWING) -> list[Leaf]:
        """What a key may use of the nodes that have yet to say what they offer."""
        return self.leaves(policy, _EVERY_MODEL, regions, narrowing)

    def _scope(self, policy: Policy, regions: RegionTree, narrowing: Narrowing) -> Scope:
        if regions is not self._tree:
            self._forget_scopes()
            self._tree = regions
        key = (policy.regions, policy.minimum_trust, narrowing.region)
        scope = self._scopes.get(key)
        if scope is None:
            if len(self._scopes) >= _MAX_SCOPES:
                del self._scopes[next(iter(self._scopes))]
            scope = self._scopes[key] = Scope()
        return scope

    def _forget_scopes(self) -> None:
        self._scopes.clear()
        for shelves in self._models.values():
            for shelf in shelves.values():
                shelf.pools.clear()

    def node_ids(self, places: Iterable[int]) -> Iterator[str]:
        """The nodes that stand at these places."""
        return (self._at[place] for place in places)

    def nearest(self, leaves: Iterable[Leaf], key: int, count: int) -> list[str]:
        """The ready nodes with room that follow a key on the ring, next first."""
        places = set(successors(leaves, key, count))
        return [self._at[place] for place in sorted(places, key=lambda place: distance(place, key))[:count]]


def _is_readable(policy: Policy) -> bool:
    """Whether its parts are what they are said to be: of others nothing may be remembered for all."""
    parts: tuple[object, object, object] = (policy.fleet, policy.regions, policy.minimum_trust)
    return all(map(isinstance, parts, (Fleet, frozenset, TrustClass)))


def _allows(policy: Policy, regions: RegionTree, narrowing: Narrowing, key: LeafKey) -> bool:
    """Whether a policy permits nodes of a leaf: the predicate itself says so, of one that stands for all.

    The owner's gate is not in question here, since a leaf is only come to by a reach that the policy has.
    """
    region, trust = key
    anyone = NodeFacts("node", policy.organisation_id, region, region is not None, trust, PRIVATE)
    return permits(policy, anyone, regions, Narrowing(region=narrowing.region)).permitted
