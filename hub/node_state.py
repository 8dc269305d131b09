"""How a node is, in one word: what storage holds and what the live session says, joined.

Pure. Owns the words and which of them wins. Must not know requests, storage or how it is shown.
"""

from __future__ import annotations

from typing import Literal

from hub.live import LiveNode
from hub.storage.records import Node

NodeState = Literal[
    "online",
    "draining",
    "drained",
    "paused",
    "connecting",
    "reconnecting",
    "leaving",
    "offline",
    "quarantined",
    "revoked",
]
"""``draining`` is on drain and still answering, ``drained`` has ended all that it was answering."""


def node_state(node: Node, live: LiveNode | None, *, quarantined: bool, expected: bool) -> NodeState:
    """Say how a node is; a revoked one is never online.

    Args:
        node: what storage holds.
        live: its session, where there is one.
        quarantined: two machines use its key.
        expected: it was asked to dial again and is due back.
    """
    if node.revoked_at is not None:
        return "revoked"
    if quarantined:
        return "quarantined"
    if expected:
        return "reconnecting"
    return "offline" if live is None else _session_state(node, live)


def _session_state(node: Node, live: LiveNode) -> NodeState:
    if not live.reported:
        return "connecting"
    if live.draining:
        return "leaving"
    if node.draining_since is not None:
        return "draining" if live.in_flight else "drained"
    return "online" if live.accepting else "paused"
