"""A job that somebody gives a node: whose nodes they may give one, and with which models.

Owns that rule, for every place where people or their programs can ask. Only the owner's own people give a
node work by hand; an operator does not. What they may use is what a key for their own nodes may use, and is
judged where the job is sent. Must not know HTTP.
"""

from __future__ import annotations

from hub.errors import InvalidInput, NotFound
from hub.jobs import Action, Jobs, NodeJob
from hub.policy import Policy
from hub.registry import Registry
from hub.storage.records import Node


async def give_by_hand(
    jobs: Jobs, registry: Registry, node: Node | None, organisation_id: str, *, action: Action, model: str
) -> NodeJob:
    """Give a node a job with one of the models that it offers.

    Args:
        jobs: what sends it.
        registry: what nodes last said of themselves.
        node: the node as stored, where there is one.
        organisation_id: of whoever gives it.
        action: what to do with the model.
        model: its id.

    Raises:
        NotFound: there is no such node, or it is another organisation's, or it was revoked.
        InvalidInput: the node does not offer the model (any more).
        NodeNotConnected, NodeNotPermitted, NodeDraining, TooManyJobs: see `Jobs.give`.
        SpoolUnavailable: it cannot be written down, so it is not sent.
    """
    if node is None or node.organisation_id != organisation_id or node.revoked_at is not None:
        raise NotFound("node", "" if node is None else node.id)
    if registry.model_status(node.id, model) is None:
        raise InvalidInput("model", "the node does not offer it now: it may not be connected")
    return await jobs.give(node.id, action, model, Policy(organisation_id))
