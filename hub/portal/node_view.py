"""A node as people see it: what storage holds and what the live session says, in one record.

Pure: takes records and `now`, knows nothing of requests, storage or templates.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hub.node_state import NodeState, node_state
from hub.portal.presenting import ago_text, bytes_text, counted, span_text
from hub.registry import LiveNode
from hub.storage.records import Node
from tunnel.messages import DeviceStatus, ModelStatus

_STATES: Mapping[NodeState, tuple[str, str]] = {
    "online": ("Online", "good"),
    "draining": ("Draining", "warn"),
    "drained": ("Drained", "off"),
    "paused": ("Online, not accepting", "warn"),
    "connecting": ("Connecting", "warn"),
    "reconnecting": ("Reconnecting", "warn"),
    "leaving": ("Leaving", "warn"),
    "offline": ("Offline", "off"),
    "quarantined": ("Quarantined", "bad"),
    "revoked": ("Revoked", "bad"),
}
_AWAY = ("offline", "quarantined", "revoked")
_CLONED = (
    "Two machines use this node's key, so neither is let in for now. Find the copy; if you cannot, revoke "
    "the node and enroll the machine anew."
)
_DEVICE_KINDS = {"cpu": "CPU", "cuda": "NVIDIA GPU", "metal": "Apple GPU"}


@dataclass(frozen=True, slots=True)
class MemoryView:
    """One device's memory as shares of its total, in per cent from the left: others, then models."""

    name: str
    kind: str
    total: str
    others: float
    models: float
    budget: float
    words: str


@dataclass(frozen=True, slots=True)
class WarmingView:
    """A model on its way; `percent` is None where the node cannot tell."""

    model: str
    phase: str
    percent: int | None


@dataclass(frozen=True, slots=True)
class NodeView:
    """Everything the lists and pages of nodes show; `drain` is what is said of one on drain."""

    id: str
    name: str
    state: NodeState
    state_words: str
    tone: str
    since: str
    reason: str | None
    drain: str | None
    in_flight: int
    ready: tuple[str, ...]
    warming: tuple[WarmingView, ...]
    cold: tuple[str, ...]
    devices: tuple[MemoryView, ...]
    address: str | None
    agent: str | None
    node: Node

    @property
    def is_online(self) -> bool:
        """Whether its tunnel stands, or is about to again."""
        return self.state not in _AWAY


def node_view(
    node: Node, live: LiveNode | None, now: float, *, quarantined: bool = False, expected: bool = False
) -> NodeView:
    """Join what storage holds with what the session says; a revoked node is never shown as online.

    Args:
        node: what storage holds.
        live: its session, where there is one.
        now: UTC seconds since the epoch.
        quarantined: two machines use its key.
        expected: it was asked to dial again and is due back.
    """
    state = node_state(node, live, quarantined=quarantined, expected=expected)
    seen = live if state not in _AWAY else None
    words, tone = _STATES[state]
    models = seen.models if seen else ()
    return NodeView(
        id=node.id,
        name=node.name,
        state=state,
        state_words=words,
        tone=tone,
        since=_since(node, state, seen, now),
        reason=_CLONED if state == "quarantined" else seen.reason if seen else None,
        drain=_drain_words(node, state, seen),
        in_flight=seen.in_flight if seen else 0,
        ready=tuple(model.model for model in models if model.state == "ready"),
        warming=tuple(_warming(model, seen) for model in models if seen and model.state == "warming"),
        cold=tuple(model.model for model in models if model.state == "cold" and model.fits),
        devices=tuple(_memory(device) for device in seen.devices) if seen else (),
        address=seen.remote_address if seen else None,
        agent=(seen.agent if seen else None) or str(node.machine.get("agent", "")) or None,
        node=node,
    )


def node_views(
    nodes: Iterable[Node],
    live: Mapping[str, LiveNode],
    now: float,
    *,
    quarantined: Collection[str] = (),
    expected: Collection[str] = (),
) -> list[NodeView]:
    """Return the views of many nodes: those that are online first, then by name."""
    views = [
        node_view(
            node, live.get(node.id), now, quarantined=node.id in quarantined, expected=node.id in expected
        )
        for node in nodes
    ]
    return sorted(views, key=lambda view: (not view.is_online, view.name.casefold(), view.id))


def _since(node: Node, state: NodeState, live: LiveNode | None, now: float) -> str:
    if node.revoked_at is not None:
        return f"revoked {ago_text(node.revoked_at, now)}"
    if node.draining_since is not None and state in ("draining", "drained"):
        return f"for {span_text(now - node.draining_since)}"
    if live is not None:
        return f"for {span_text(now - live.connected_at)}"
    return "never connected" if node.last_seen_at is None else f"last seen {ago_text(node.last_seen_at, now)}"


def _drain_words(node: Node, state: NodeState, live: LiveNode | None) -> str | None:
    if node.draining_since is None or node.revoked_at is not None:
        return None
    if state == "draining" and live is not None:
        return f"Draining: {counted(live.in_flight, 'answer')} in flight, and it gets no new request."
    if state == "drained":
        return "Drained: it answers nothing, and gets no request until it is resumed."
    return "On drain: it gets no request until it is resumed."


def _warming(model: ModelStatus, live: LiveNode | None) -> WarmingView:
    fraction = model.done_bytes / model.total_bytes if model.total_bytes > 0 else None
    if fraction is None or model.phase == "loading":
        replicas = live.replicas if live else ()
        fraction = next((replica.progress for replica in replicas if replica.model == model.model), fraction)
    return WarmingView(model.model, model.phase or "warming", percent_of(fraction))


def percent_of(fraction: float | None) -> int | None:
    """Return a share in per cent; None where it is not known."""
    # The node says it, and a node may say anything: what is no number is not known.
    if fraction is None or math.isnan(fraction):
        return None
    return round(100 * min(max(fraction, 0), 1))


def _memory(device: DeviceStatus) -> MemoryView:
    total = max(device.memory_total, 1)
    others = _share(device.memory_used_by_others, total)
    models = min(_share(device.memory_reserved, total), 100 - others)
    words = (
        f"{bytes_text(device.memory_reserved)} held by models, "
        f"{bytes_text(device.memory_used_by_others)} used by others, "
        f"of {bytes_text(device.memory_total)}; models may take {bytes_text(device.memory_budget)}"
    )
    kind = _DEVICE_KINDS.get(device.kind, device.kind)
    budget = min(_share(device.memory_budget, total), 100 - others)
    return MemoryView(device.name, kind, bytes_text(device.memory_total), others, models, budget, words)


def _share(part: int, total: int) -> float:
    return round(100 * min(max(part / total, 0), 1), 1)
