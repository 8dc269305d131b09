"""`/admin/v1/nodes/{node_id}/jobs`: have a node load, unload or download a model.

Owns their form on the wire. Whose nodes may be given which work is `hub.jobs_by_hand`'s.
"""

from hub.api.admin.callers import Caller, Manager, TheHub
from hub.api.admin.nodes import NodeId, found_node
from hub.api.admin.route import OutsideRoute, admin_router
from hub.api.admin.wire import ModelId, Page, Told, Wire, told
from hub.jobs import Action, NodeJob
from hub.jobs_by_hand import give_by_hand

router = admin_router(OutsideRoute)


class Job(Wire):
    """A job; `phase` is the node's word for what it does, sizes are bytes."""

    id: str
    node: str
    action: Action
    model: str
    phase: str
    over: bool
    done_bytes: int
    total_bytes: int
    error: str | None
    heard_at: Told


class JobWish(Wire):
    """What a node is to do with a model that it offers."""

    action: Action
    model: ModelId


@router.get("/nodes/{node_id}/jobs")
async def list_jobs(hub: TheHub, caller: Caller, node_id: NodeId) -> Page[Job]:
    """List the newest job of each model of a node, as long as this Hub remembers it."""
    node = await found_node(hub, caller, node_id)
    jobs = hub.jobs.latest(node.id).values()
    return Page[Job](data=[_shown(job) for job in jobs], next=None)


@router.post("/nodes/{node_id}/jobs", status_code=202)
async def give_job(hub: TheHub, caller: Manager, node_id: NodeId, wish: JobWish) -> Job:
    """Have a node load, unload or download (`pull`) a model that it offers. Only its owner's tokens may."""
    node = await hub.storage.nodes.get(node_id)
    given = await give_by_hand(
        hub.jobs, hub.registry, node, caller.organisation_id, action=wish.action, model=wish.model
    )
    return _shown(given)


def _shown(job: NodeJob) -> Job:
    return Job(
        id=job.id,
        node=job.node_id,
        action=job.action,
        model=job.model,
        phase=job.phase,
        over=job.over,
        done_bytes=job.done,
        total_bytes=job.total,
        error=job.error,
        heard_at=told(job.heard_at),
    )
