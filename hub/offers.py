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

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from hub.router import COLD, FULL, PENDING, WARMING

_PUBLIC = "*"
_MAX_SCOPES = 256
"""Kinds of keys whose leaves are remembered; beyond it all are worked out again."""
_STEPS = 8
"""Nodes on a ring that are passed over before the leaves are looked at one by one."""

_EVERY_MODEL = ""
"""Where nodes stand that have yet to say what they offer."""

LeafKey = tuple[str | None, TrustClass]


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
class Leaf:
    """Nodes of one access that offer one model.

    Attributes:
        grades: places on the ring by grade, each in ascending order; none is empty.
        mask: a bit for each grade that somebody has.
        ring: the places of all that are ready and have room.
    """

    grades: dict[int, list[int]] = field(default_factory=dict)
    mask: int = 0
    ring: list[int] = field(default_factory=list)

    def move(self, place: int, old: int | None, new: int | None) -> None:
        """Let a node that stands here, or nowhere, stand under another grade, or nowhere."""
        if old is not None:
            places = self.grades[old]
            _discard(places, place)
            if not places:
                del self.grades[old]
                self.mask &= ~(1 << old)
        if new is not None:
            insort(self.grades.setdefault(new, []), place)
            self.mask |= 1 << new
        _move_on_ring(self.ring, place, old, new)


def _discard(places: list[int], place: int) -> None:
    del places[bisect_left(places, place)]


def _move_on_ring(ring: list[int], place: int, old: int | None, new: int | None) -> None:
    """On a ring stand those that are ready and have room, whatever their grade."""
    before, after = old is not None and old < WARMING, new is not None and new < WARMING
    if before and not after:
        _discard(ring, place)
    elif after and not before:
        insort(ring, place)


@dataclass(slots=True)
class Shelf:
    """The leaves of one model to which keys come by one reach.

    Attributes:
        ring: the places of all on them that are ready and have room.
        version: goes up whenever a leaf comes or goes.
    """

    leaves: dict[LeafKey, Leaf] = field(default_factory=dict)
    ring: list[int] = field(default_factory=list)
    version: int = 0

    def move(self, key: LeafKey, place: int, old: int | None, new: int | None) -> None:
        """Let a node that stands on a leaf, or nowhere, stand under another grade, or nowhere."""
        leaf = self.leaves.get(key)
        if leaf is None:
            leaf = self.leaves[key] = Leaf()
            self.version += 1
        leaf.move(place, old, new)
        _move_on_ring(self.ring, place, old, new)
        if not leaf.mask:
            del self.leaves[key]
            self.version += 1


@dataclass(slots=True)
class _Scope:
    """What is known of the leaves for keys of one kind: it does not depend on whose keys they are.

    Attributes:
        allows: whether they may use a leaf.
        kept: those of a shelf that they may, by model and reach, with the shelf's version.
    """

    allows: dict[LeafKey, bool] = field(default_factory=dict)
    kept: dict[tuple[str, str], tuple[Shelf, int, list[Leaf]]] = field(default_factory=dict)


@dataclass(slots=True)
class View:
    """What one key may use of the nodes that offer one model."""

    leaves: list[Leaf]
    shelves: list[tuple[Shelf, list[Leaf]]]
    scope: _Scope


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
        self._filed: dict[str, _Filed] = {}
        self._at: dict[int, str] = {}
        self._tree = RegionTree()
        self._scopes: dict[tuple[object, ...], _Scope] = {}

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
        """Let a node stand where those stand that have yet to say what they offer."""
        self.file(facts, {_EVERY_MODEL: PENDING})

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
        shelf = shelves.get(reach) or shelves.setdefault(reach, Shelf())
        shelf.move(filed.access.leaf, filed.place, old, new)
        if not shelf.leaves:
            del shelves[reach]
            if not shelves:
                del self._models[model]

    # --- looking -----------------------------------------------------------------------------------------

    def is_filed_by(self, facts: NodeFacts) -> bool:
        """Whether a node stands where these very facts put it."""
        filed = self._filed.get(facts.node_id)
        return filed is not None and filed.facts is facts

    def view(
        self, policy: Policy, model: str, regions: RegionTree, narrowing: Narrowing = NO_NARROWING
    ) -> View:
        """What a key may use of the nodes that offer a model."""
        if not _is_readable(policy):
            return View([], [], _Scope())
        scope = self._scope(policy, regions, narrowing)
        found = View([], [], scope)
        shelves = self._models.get(model, _NO_SHELVES)
        for reach in _reaches(policy):
            if (shelf := shelves.get(reach)) is not None:
                allowed = _allowed(shelf, scope, (model, reach), partial(_allows, policy, regions, narrowing))
                found.leaves += allowed
                found.shelves.append((shelf, allowed))
        return found

    def pending(self, policy: Policy, regions: RegionTree, narrowing: Narrowing = NO_NARROWING) -> View:
        """What a key may use of the nodes that have yet to say what they offer."""
        return self.view(policy, _EVERY_MODEL, regions, narrowing)

    def _scope(self, policy: Policy, regions: RegionTree, narrowing: Narrowing) -> _Scope:
        if regions is not self._tree or len(self._scopes) >= _MAX_SCOPES:
            self._scopes.clear()
            self._tree = regions
        key = (policy.regions, policy.minimum_trust, narrowing.region)
        scope = self._scopes.get(key)
        return self._scopes.setdefault(key, _Scope()) if scope is None else scope

    def node_ids(self, places: Iterable[int]) -> Iterator[str]:
        """The nodes that stand at these places."""
        return (self._at[place] for place in places)

    def nearest(self, view: View, key: int, count: int) -> list[str]:
        """The ready nodes with room that follow a key on the ring, next first."""
        places: set[int] = set()
        for shelf, leaves in view.shelves:
            walked = self._walk(shelf.ring, view.scope, key, count)
            places.update(_successors(leaves, key, count) if walked is None else walked)
        return [self._at[place] for place in sorted(places, key=lambda place: distance(place, key))[:count]]

    def _walk(self, ring: list[int], scope: _Scope, key: int, count: int) -> list[int] | None:
        """The next on a ring whose leaf is allowed; ``None`` where the first few are too few of them."""
        start, size = bisect_left(ring, key), len(ring)
        found: list[int] = []
        for step in range(min(size, count + _STEPS)):
            place = ring[(start + step) % size]
            if scope.allows.get(self._filed[self._at[place]].access.leaf):
                found.append(place)
                if len(found) == count:
                    return found
        return found if size <= count + _STEPS else None


_NO_SHELVES: dict[str, Shelf] = {}


def _allowed(
    shelf: Shelf,
    scope: _Scope,
    name: tuple[str, str],
    allows: Callable[[LeafKey], bool],
) -> list[Leaf]:
    """The leaves of a shelf that a policy permits."""
    kept, version, found = scope.kept.get(name, (None, 0, []))
    if kept is shelf and version == shelf.version:
        return found
    found = []
    for key, leaf in shelf.leaves.items():
        allowed = scope.allows.get(key)
        if allowed is None:
            allowed = scope.allows[key] = allows(key)
        if allowed:
            found.append(leaf)
    scope.kept[name] = (shelf, shelf.version, found)
    return found


def _successors(leaves: Iterable[Leaf], key: int, count: int) -> Iterator[int]:
    """The next of each leaf."""
    for leaf in leaves:
        ring = leaf.ring
        start = bisect_left(ring, key)
        yield from ring[start : start + count]
        if (rest := start + count - len(ring)) > 0:
            yield from ring[:rest]


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


def graded(leaves: Iterable[Leaf]) -> Iterator[tuple[int, list[list[int]]]]:
    """The grades that somebody able to serve has, best first, each with the lists of who has it."""
    known = list(leaves)
    mask = _able(known)
    while mask:
        grade = (mask & -mask).bit_length() - 1
        mask &= mask - 1
        yield grade, [places for leaf in known if (places := leaf.grades.get(grade))]


def least_grade(leaves: Iterable[Leaf]) -> int | None:
    """The best grade that somebody able to serve has."""
    mask = _able(leaves)
    return (mask & -mask).bit_length() - 1 if mask else None


def _able(leaves: Iterable[Leaf]) -> int:
    """A bit for each grade, of those able to serve, that somebody has."""
    mask = 0
    for leaf in leaves:
        mask |= leaf.mask
    return mask & ((1 << (COLD + 1)) - 1)


def full_places(leaves: Iterable[Leaf]) -> Iterator[int]:
    """Where those stand whom nothing but their load keeps from serving."""
    return (place for leaf in leaves for place in leaf.grades.get(FULL, ()))


def pending_places(leaves: Iterable[Leaf]) -> Iterator[int]:
    """Where those stand that have yet to say what they offer."""
    return (place for leaf in leaves for place in leaf.grades.get(PENDING, ()))
