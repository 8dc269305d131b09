"""`/admin/v1/nodes`: the machines, live, what may reach them, and their end.

Owns their form on the wire. What may be decided about a node, and by whom, is `hub.placement`'s.
"""

from typing import Annotated

from fastapi import Query

from hub.api.admin.callers import Caller, Listed, Manager, TheHub, visible
from hub.api.admin.route import admin_router
from hub.api.admin.wire import (
    Name,
    Page,
    PageSize,
    RegionCode,
    SharingRule,
    Told,
    Trust,
    Wire,
    id_path,
    maybe_told,
    page,
    told,
    trust_of,
)
from hub.composition import Hub
from hub.live import LiveNode
from hub.node_state import NodeState, node_state
from hub.placement import PlacementChange
from hub.storage.records import AdminToken, Node
from tunnel.identity import fingerprint
from tunnel.messages import DeviceStatus, ModelStatus

router = admin_router()

NodeId = Annotated[str, id_path("node")]


class Device(Wire):
    """One device; sizes in bytes."""

    kind: str
    name: str
    memory_total: int
    memory_used_by_others: int
    memory_reserved: int
    memory_budget: int


class OfferedModel(Wire):
    """One model of a node, as the node reports it; sizes in bytes."""

    model: str
    state: str
    phase: str
    on_disk: bool
    fits: bool
    size_bytes: int
    done_bytes: int
    total_bytes: int


class Live(Wire):
    """What a connected node reports."""

    connected_at: Told
    address: str
    agent: str
    accepting: bool
    in_flight: int
    devices: list[Device]
    models: list[OfferedModel]


class Machine(Wire):
    """What a machine said of itself when it asked to join: shown, never judged."""

    hostname: str | None
    os: str | None
    arch: str | None
    agent: str | None


class NodeShown(Wire):
    """A node. A `region` counts once `region_confirmed` says so; `live` is null while it is not connected.

    `draining_since` says since when it is on drain and gets no new requests. Its `state` is `draining` while
    it is still answering, and `drained` from then on.
    """

    id: str
    organisation: str
    name: str
    state: NodeState
    region: str | None
    region_confirmed: bool
    trust: str | None
    sharing: SharingRule | None
    fingerprint: str
    machine: Machine
    created_at: Told
    revoked_at: Told | None
    last_seen_at: Told | None
    draining_since: Told | None
    live: Live | None


class NodeChange(Wire):
    """What is to be another; what is not said stays. A `region` of null is nowhere in particular."""

    name: Name | None = None
    region: RegionCode | None = None
    trust: Trust | None = None
    sharing: SharingRule | None = None


@router.get("/nodes")
async def list_nodes(
    hub: TheHub, organisation: Listed, after: str | None = Query(None, max_length=100), limit: PageSize = 50
) -> Page[NodeShown]:
    """List nodes, revoked ones too."""
    found = await hub.storage.nodes.page(organisation, after=after, limit=limit + 1)
    live = hub.registry.shown([node.id for node in found])
    return page(found, limit, lambda node: _shown(hub, node, live.get(node.id)), lambda node: node.id)


@router.get("/nodes/{node_id}")
async def get_node(hub: TheHub, caller: Caller, node_id: NodeId) -> NodeShown:
    """Show one node."""
    return _now(hub, await found_node(hub, caller, node_id))


@router.patch("/nodes/{node_id}")
async def edit_node(hub: TheHub, caller: Manager, node_id: NodeId, change: NodeChange) -> NodeShown:
    """Change a node's name, region, trust class or sharing. It counts at once.

    A trust class is an operator's to set; a region that others choose counts once an operator confirms it,
    which one does by saying it.
    """
    node = await found_node(hub, caller, node_id)
    placed = await hub.enrollment.place(
        node.id,
        caller,
        PlacementChange(
            name=change.name,
            region=change.region,
            says_region="region" in change.model_fields_set,
            trust=trust_of(change.trust) if change.trust else None,
            sharing=change.sharing.sharing if change.sharing else None,
        ),
    )
    return _now(hub, placed)


@router.post("/nodes/{node_id}/drain")
async def drain_node(hub: TheHub, caller: Manager, node_id: NodeId) -> NodeShown:
    """Put a node on drain: it ends what it is answering, and gets no new request until it is resumed.

    Draining one that is on drain changes nothing.
    """
    node = await found_node(hub, caller, node_id)
    return _now(hub, await hub.enrollment.drain(node.id))


@router.post("/nodes/{node_id}/resume")
async def resume_node(hub: TheHub, caller: Manager, node_id: NodeId) -> NodeShown:
    """Take a node off drain: it gets requests again, at once. One that is on none stays as it is."""
    node = await found_node(hub, caller, node_id)
    return _now(hub, await hub.enrollment.resume(node.id))


@router.post("/nodes/{node_id}/revoke")
async def revoke_node(hub: TheHub, caller: Manager, node_id: NodeId) -> NodeShown:
    """End a node: its connection is cut at once and its credential is worth nothing from then on."""
    node = await found_node(hub, caller, node_id)
    await hub.enrollment.revoke(node.id)
    return _now(hub, await found_node(hub, caller, node_id))


async def found_node(hub: Hub, caller: AdminToken, node_id: str) -> Node:
    """A node that the caller may see.

    Raises:
        NotFound: there is none, or it is another organisation's.
    """
    return visible(caller, "node", node_id, await hub.storage.nodes.get(node_id))


def node_shown(hub: Hub, node: Node) -> NodeShown:
    """A node that has just been made."""
    return _shown(hub, node, None)


def _now(hub: Hub, node: Node) -> NodeShown:
    return _shown(hub, node, hub.registry.shown([node.id]).get(node.id))


def _shown(hub: Hub, node: Node, live: LiveNode | None) -> NodeShown:
    state = node_state(
        node,
        live,
        quarantined=node.id in hub.clones.quarantined(hub.clock()),
        expected=node.id in hub.registry.expected(),
    )
    is_here = live is not None and state not in ("quarantined", "revoked")
    return NodeShown(
        id=node.id,
        organisation=node.organisation_id,
        name=node.name,
        state=state,
        region=node.region,
        region_confirmed=node.facts(hub.config.region_authority).region_confirmed and node.region is not None,
        trust=None if node.trust is None else node.trust.label,
        sharing=SharingRule.of(node.sharing),
        fingerprint=fingerprint(node.public_key),
        machine=machine_shown(node.machine),
        created_at=told(node.created_at),
        revoked_at=maybe_told(node.revoked_at),
        last_seen_at=maybe_told(node.last_seen_at),
        draining_since=maybe_told(node.draining_since),
        live=_live(live) if live is not None and is_here else None,
    )


def machine_shown(machine: object) -> Machine:
    """What a machine said; what is of another kind than it should be is left out."""
    said = dict(machine) if isinstance(machine, dict) else {}
    words = {name: said.get(name) for name in Machine.model_fields}
    return Machine(**{name: word if isinstance(word, str) else None for name, word in words.items()})


def _live(live: LiveNode) -> Live:
    return Live(
        connected_at=told(live.connected_at),
        address=live.remote_address,
        agent=live.agent,
        accepting=live.accepting,
        in_flight=live.in_flight,
        devices=[_device(each) for each in live.devices],
        models=[_model(each) for each in live.models],
    )


def _device(device: DeviceStatus) -> Device:
    return Device(**{name: getattr(device, name) for name in Device.model_fields})


def _model(model: ModelStatus) -> OfferedModel:
    return OfferedModel(**{name: getattr(model, name) for name in OfferedModel.model_fields})
