"""One credential used by two machines: how that is noticed, and for how long neither is let in.

Owns the rule and what it remembers, in memory: a restart forgives. Time is an argument. Must not know sockets
or storage.

Every run of a node has an instance id of its own. A restarted node never comes back under an id that it had
before, and a node that lost its connection comes back under the same. An id that returns after another took
its place is therefore a second machine with a copy of the key.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

RETURNS = 2
"""So many returns within the window are no accident: each machine has then taken the place of the other."""
WINDOW_S = 300.0
QUARANTINE_S = 600.0

_REMEMBERED = 8  # instances of a node
_MAX_NODES = 10_000  # bounds memory; those quiet for longest are forgotten


@dataclass(slots=True)
class _History:
    instances: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    returns: deque[float] = field(default_factory=lambda: deque(maxlen=RETURNS))
    until: float = 0.0


class CloneWatch:
    """What is remembered of the instances that came in, by node."""

    def __init__(self) -> None:
        self._nodes: OrderedDict[str, _History] = OrderedDict()

    def admits(self, node_id: str, instance_id: str, now: float) -> bool:
        """Whether an instance may come in; counts it. False for all instances while the quarantine lasts."""
        history = self._nodes.setdefault(node_id, _History())
        self._nodes.move_to_end(node_id)
        if len(self._nodes) > _MAX_NODES:
            self._nodes.popitem(last=False)
        if now < history.until:
            return False
        if self._has_returned(history, instance_id):
            history.returns.append(now)
        if len(history.returns) == RETURNS and now - history.returns[0] < WINDOW_S:
            self._nodes[node_id] = _History(until=now + QUARANTINE_S)
            return False
        if not history.instances or history.instances[-1] != instance_id:
            history.instances.append(instance_id)
        return True

    def quarantined(self, now: float) -> Mapping[str, float]:
        """The nodes in quarantine, each with the time at which it ends."""
        return {node_id: each.until for node_id, each in self._nodes.items() if now < each.until}

    @staticmethod
    def _has_returned(history: _History, instance_id: str) -> bool:
        known = history.instances
        return bool(known) and known[-1] != instance_id and instance_id in known
