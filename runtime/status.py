"""What the node says of itself: to the Hub as STATUS, to the owner as a document.

Owns the translation of a snapshot; decides nothing. Pure.
"""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from runtime.hub_http import AGENT
from runtime.identity import Identity
from runtime.snapshot import ModelView, NodeSnapshot
from runtime.versions import program_of
from tunnel.messages import DeviceStatus, ModelStatus, ReplicaStatus, Status

MAX_DEVICES = 16
MAX_REPLICAS = 32
MAX_MODELS = 64
"""Together far below the 32 KiB of a control message, with names and ids at their longest usual."""
MAX_NAME = 64
_STATE_RANK = {"ready": 0, "warming": 1, "cold": 2}


def to_status(snapshot: NodeSnapshot, *, stopping: bool = False) -> Status:
    """The STATUS message for what the node is now. Of very many models, the nearest to serving are named."""
    return Status(
        agent=AGENT,
        accepting=snapshot.accepting and not stopping,
        reason="stopping" if stopping else snapshot.reason,
        devices=tuple(
            DeviceStatus(
                id=device.id[:MAX_NAME],
                kind=device.kind,
                name=device.name[:MAX_NAME],
                memory_total=device.memory_total,
                memory_used_by_others=device.memory_used_by_others,
                memory_budget=device.memory_budget,
                # What a stopped engine keeps is as little to be promised as what a running one takes.
                memory_reserved=device.memory_reserved + device.memory_held,
            )
            for device in snapshot.devices[:MAX_DEVICES]
        ),
        replicas=tuple(
            ReplicaStatus(
                id=replica.id,
                model=replica.model,
                state=replica.state,
                slots=replica.slots,
                running=replica.running,
                waiting=replica.waiting,
                tokens_per_second=replica.tokens_per_second,
                phase=replica.phase,
                progress=replica.progress,
            )
            for replica in snapshot.replicas[:MAX_REPLICAS]
        ),
        models=tuple(_model_status(view) for view in nearest_to_serving(snapshot.models)[:MAX_MODELS]),
    )


def nearest_to_serving(models: Sequence[ModelView]) -> list[ModelView]:
    """Ready models first, then warming ones, then those on disk, then those that would fit."""
    return sorted(models, key=lambda view: (_STATE_RANK[view.state], not view.on_disk, not view.fits))


def _model_status(view: ModelView) -> ModelStatus:
    return ModelStatus(
        model=view.model,
        digest=view.digest,
        size_bytes=view.size_bytes,
        on_disk=view.on_disk,
        state=view.state,
        fits=view.fits,
        context_length=view.context_length,
        capabilities=view.capabilities,
        phase=view.phase,
        done_bytes=view.done_bytes,
        total_bytes=view.total_bytes or view.size_bytes,
    )


def describe(
    snapshot: NodeSnapshot,
    *,
    identity: Identity | None,
    tunnel: str,
    draining: bool = False,
    local_url: str,
    pid: int,
    stopping: bool,
    owner: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The document behind `porten status --json`.

    `owner` is how far the machine is given back; `draining`: the Hub says that it gives no new requests.
    """
    return {
        "agent": AGENT,
        "program": program_of(Path(sys.prefix)),
        "pid": pid,
        "accepting": snapshot.accepting and not stopping,
        "reason": "stopping" if stopping else snapshot.reason,
        "owner": owner,
        "node": describe_identity(identity),
        "tunnel": {"state": tunnel, "draining": draining},
        "local_api": local_url,
        "devices": [asdict(device) for device in snapshot.devices],
        "replicas": [asdict(replica) for replica in snapshot.replicas],
        "models": [describe_model(view) for view in snapshot.models],
    }


def describe_model(view: ModelView) -> dict[str, Any]:
    """A model for the owner. One that nobody asked for is in no phase, though the wire has a word for it."""
    idle = view.state == "cold" and view.phase == "queued"
    return asdict(view) | {"phase": None if idle else view.phase}


def describe_identity(identity: Identity | None) -> dict[str, Any] | None:
    """What the owner may know of the identity; the key and the credential's text are not part of it."""
    if identity is None:
        return None
    credential = identity.credential
    return {
        "id": credential.node_id,
        "name": identity.hub.name,
        "hub": identity.hub.hub_url,
        "region": credential.region,
        "trust": credential.trust,
        "sharing": credential.sharing,
    }
