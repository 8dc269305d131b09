"""Which nodes are here, and what may be believed about them.

Owns the live sessions, one a node, and the copies of what storage says about nodes and regions. Must not know
HTTP, bodies or who asks: it gives candidates, the router chooses among them.

A fact that may be out of date counts as unknown, and an unknown node serves nobody: when a change is announced
the copy goes first and comes back only from storage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A connected node as the portal shows it. ``connected_at`` is UTC seconds since the epoch."""

    node_id: str
    generation: int
    connected_at: float
    remote_address: str
    agent: str
    accepting: bool
    draining: bool
    reason: str | None
    in_flight: int
    devices: tuple[DeviceStatus, ...]
    replicas: tuple[ReplicaStatus, ...]
    models: tuple[ModelStatus, ...]


class Registry:
    """The live nodes."""

    def snapshot(self) -> Mapping[str, LiveNode]:
        """Every connected node by its id."""
        raise NotImplementedError
