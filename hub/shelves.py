"""The leaves on which the nodes that offer one model stand, and pools of those that one kind of key may use.

Owns the order within them, for :mod:`hub.offers`. Pure: places and grades are numbers here, whatever they
mean.

A leaf holds nodes that are alike to every policy. Where there are many leaves, those that one kind of key
may use are kept together in a pool as well, made when such a key first asks: so a choice looks at one list,
however many regions and trust classes there are.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from hub.policy import TrustClass
from hub.router import COLD, FULL, PENDING, WARMING

MANY = 8
"""Leaves beyond which they are not looked at one by one."""
MAX_POOLS = 16
"""Pools that one shelf keeps: each is one more list to be kept in order at every change."""

LeafKey = tuple[str | None, TrustClass]
"""What makes nodes alike: the confirmed region, if any, and the trust class."""


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


@dataclass(eq=False, slots=True)
class Scope:
    """One kind of key, whoever owns it, and which leaves it may use, as far as that was asked."""

    allows: dict[LeafKey, bool] = field(default_factory=dict)


@dataclass(slots=True)
class Shelf:
    """The leaves of one model to which keys come by one reach."""

    leaves: dict[LeafKey, Leaf] = field(default_factory=dict)
    pools: dict[Scope, Leaf] = field(default_factory=dict)

    def move(self, key: LeafKey, place: int, old: int | None, new: int | None) -> None:
        """Let a node that stands on a leaf, or nowhere, stand under another grade, or nowhere."""
        leaf = self.leaves.get(key)
        if leaf is None:
            leaf = self.leaves[key] = Leaf()
            self.pools.clear()  # it is not known which may use it
        leaf.move(place, old, new)
        for scope, pool in self.pools.items():
            if scope.allows[key]:
                pool.move(place, old, new)
        if not leaf.mask:
            del self.leaves[key]

    def permitted(self, scope: Scope, allows: Callable[[LeafKey], bool]) -> Sequence[Leaf]:
        """What keys of one kind may use.

        Args:
            scope: the kind.
            allows: says whether they may use a leaf; asked once for each.
        """
        if (pool := self.pools.get(scope)) is not None:
            return (pool,)
        found = self.allowed(scope, allows)
        if len(self.leaves) <= MANY:
            return found
        if len(self.pools) >= MAX_POOLS:
            del self.pools[next(iter(self.pools))]
        self.pools[scope] = _together(found)
        return (self.pools[scope],)

    def allowed(self, scope: Scope, allows: Callable[[LeafKey], bool]) -> Sequence[Leaf]:
        """The same leaf by leaf, without a pool: for who looks at all models and not at this one again."""
        for key in self.leaves:
            if key not in scope.allows:
                scope.allows[key] = allows(key)
        return [leaf for key, leaf in self.leaves.items() if scope.allows[key]]


def _together(leaves: Iterable[Leaf]) -> Leaf:
    pool = Leaf()
    for leaf in leaves:
        for grade, places in leaf.grades.items():
            pool.grades.setdefault(grade, []).extend(places)
        pool.ring.extend(leaf.ring)
        pool.mask |= leaf.mask
    for places in (*pool.grades.values(), pool.ring):
        places.sort()
    return pool


def successors(leaves: Iterable[Leaf], key: int, count: int) -> Iterator[int]:
    """The next of each leaf's ring after a key, at least as many as are wanted where there are so many."""
    for leaf in leaves:
        ring = leaf.ring
        start = bisect_left(ring, key)
        yield from ring[start : start + count]
        if (rest := start + count - len(ring)) > 0:
            yield from ring[: min(rest, start)]


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
