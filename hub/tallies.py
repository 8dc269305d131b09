"""How a model stands among the nodes that one kind of key may use: counted, and the readiest of them.

Owns the counting of an index's leaves for lists that people read. Pure: what it costs grows with the number
of grades, not of nodes. Who may use a leaf is decided before it comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from hub.router import COLD, FULL, PENDING, WARMING
from hub.shelves import Leaf


@dataclass(frozen=True, slots=True)
class Tally:
    """How many nodes stand how. A node that a key comes to in two ways, as a public one of its own, is twice.

    Attributes:
        ready: have it loaded, with room.
        full: nothing but their load keeps them from serving.
        warming: are loading it, or were just asked to.
        cold: would have to load it, and fit it.
        unable: name it, and are on drain or paused, or have no room or no engine for it.
    """

    ready: int = 0
    full: int = 0
    warming: int = 0
    cold: int = 0
    unable: int = 0

    @property
    def nodes(self) -> int:
        """All of them."""
        return self.ready + self.full + self.warming + self.cold + self.unable


@dataclass(frozen=True, slots=True)
class Offered:
    """A model as the nodes offer it that a key may use.

    Attributes:
        model: its id.
        tally: how many nodes stand how.
        node_ids: the readiest of them, first; no more than were asked for.
    """

    model: str
    tally: Tally
    node_ids: tuple[str, ...]


def tally(leaves: Sequence[Leaf]) -> Tally:
    """Count the nodes of some leaves."""
    counts = [0] * (len(_KINDS) + 1)
    for leaf in leaves:
        for grade, places in leaf.grades.items():
            counts[_kind(grade)] += len(places)
    ready, warming, cold, full, _, unable = counts
    return Tally(ready, full, warming, cold, unable)


def readiest(leaves: Sequence[Leaf]) -> Iterator[int]:
    """The places of those leaves' nodes, the best grade first."""
    grades = sorted({grade for leaf in leaves for grade in leaf.grades})
    return chain.from_iterable(leaf.grades.get(grade, ()) for grade in grades for leaf in leaves)


_KINDS = (WARMING, COLD, COLD + 1, FULL + 1, PENDING + 1)
"""The grade at which each kind ends: ready, warming, cold, full, pending; what is beyond is unable."""


def _kind(grade: int) -> int:
    return next((kind for kind, end in enumerate(_KINDS) if grade < end), len(_KINDS))
