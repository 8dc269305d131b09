"""What was true when, and whether an answer may stand: pure, told of changes and requests, judged at the end.

A change is announced (somebody sets out to make it), and acknowledged (it is made, and the Hub has said
so). From the announcement the new may count, until the acknowledgement the old may. A choice falls
somewhere between a request's beginning and its answer; it was right if at some such moment everything it
rests on may have counted together.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.unit.hub.oracle import Key, Machine, Wish, broken


@dataclass(frozen=True)
class Span:
    """A value, and the time in which it may have counted."""

    value: Any
    since: float
    until: float


@dataclass
class Timeline:
    """The values of one thing; times in seconds, of one clock. `None` is what is not there (any more)."""

    _spans: list[Span] = field(default_factory=list)

    def changed(self, value: Any, announced: float, acknowledged: float) -> None:
        """It has another value: possible from the announcement, alone from the acknowledgement."""
        if self._spans:
            last = self._spans[-1]
            self._spans[-1] = Span(last.value, last.since, acknowledged)
        self._spans.append(Span(value, announced, math.inf))

    @property
    def now(self) -> Any:
        """The last value; None where there never was one."""
        return self._spans[-1].value if self._spans else None

    def between(self, begin: float, end: float) -> Iterator[Span]:
        """Every value that may have counted at some moment of this time, cut to it."""
        for span in self._spans:
            since, until = max(span.since, begin), min(span.until, end)
            if since <= until:
                yield Span(span.value, since, until)


@dataclass
class History:
    """Keys and nodes by their ids; the tree of regions stays as it is."""

    tree: Mapping[str, str | None]
    keys: dict[str, Timeline] = field(default_factory=dict)
    nodes: dict[str, Timeline] = field(default_factory=dict)

    def key(self, key_id: str) -> Timeline:
        """The timeline of a key."""
        return self.keys.setdefault(key_id, Timeline())

    def node(self, node_id: str) -> Timeline:
        """The timeline of a node."""
        return self.nodes.setdefault(node_id, Timeline())

    def allows(self, key_id: str, node_id: str, wish: Wish, begin: float, end: float) -> bool:
        """Whether the node may have been chosen for the key at some moment of this time."""
        return any(
            max(key.since, node.since) <= min(key.until, node.until)
            and self.permits(key.value, node.value, wish)
            for key in self.key(key_id).between(begin, end)
            for node in self.node(node_id).between(begin, end)
        )

    def permits(self, key: Key | None, node: Machine | None, wish: Wish) -> bool:
        """The oracle's word."""
        return node is not None and not broken(key, node, self.tree, wish)

    def told(self, key_id: str, node_id: str, begin: float, end: float) -> str:
        """What there was to choose from, for whoever reads of a violation."""
        keys = [str(span) for span in self.key(key_id).between(begin, end)]
        nodes = [str(span) for span in self.node(node_id).between(begin, end)]
        return "\n  ".join(["", *keys, *nodes])
