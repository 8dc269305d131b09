"""Jobs that people give their nodes: load, unload or download a model, and how each goes on.

Owns the jobs that were given lately, in memory: what a node does with one is the node's to know, and is
seen in its reports as well. Whether somebody's policy lets them use the node is asked of
`hub.policy.permits` at the moment a job is sent. Must not know what jobs look like on a page.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from hub.errors import NodeDraining, NodeNotConnected, NodeNotPermitted, TooManyJobs
from hub.facts import KnownFacts
from hub.policy import Policy, permits
from tunnel.errors import SessionClosed
from tunnel.messages import Command, Event
from tunnel.session import HubSession

Action = Literal["load", "unload", "pull"]

MAX_PENDING = 16
"""Jobs that a node may have at once; it refuses more by itself."""
KEPT = 32
"""Jobs of a node that are remembered, the newest."""
SILENT_S = 3600.0
"""Seconds after which a job of which nothing is heard is no longer waited for."""


@dataclass(frozen=True, slots=True)
class NodeJob:
    """One job. ``phase`` is the node's word for what it does; times are UTC seconds, sizes bytes."""

    id: str
    node_id: str
    action: Action
    model: str
    heard_at: float
    phase: str = "sent"
    done: int = 0
    total: int = 0
    error: str | None = None

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return self.phase in ("done", "failed")


class Jobs:
    """The jobs of all nodes. Belongs to one event loop."""

    def __init__(
        self,
        session_of: Callable[[str], HubSession | None],
        facts: KnownFacts,
        clock: Callable[[], float],
        *,
        on_given: Callable[[NodeJob], None] = lambda _job: None,
    ) -> None:
        """Begin with none.

        Args:
            session_of: the session that a node's new work goes to.
            facts: what the Hub knows of nodes and regions now.
            clock: UTC seconds since the epoch.
            on_given: told of each job before it is sent; what it raises keeps the job from being sent.
        """
        self._session_of = session_of
        self._facts = facts
        self._clock = clock
        self._on_given = on_given
        self._jobs: dict[str, deque[NodeJob]] = {}

    async def give(self, node_id: str, action: Action, model: str, policy: Policy | None) -> NodeJob:
        """Send a node a job. Between the policy's word and the sending nothing is awaited.

        Args:
            node_id: whose job it is.
            action: what to do with the model.
            model: its id.
            policy: of whoever wants it done; ``None`` refuses.

        Raises:
            NodeNotConnected: it has no session, has just lost it, or is being read again after a change.
            NodeNotPermitted: the policy refuses the node.
            NodeDraining: it is on drain, and the job is more than to unload a model.
            TooManyJobs: it has enough to do.
        """
        session, facts = self._session_of(node_id), self._facts.get(node_id)
        if session is None or facts is None:
            raise NodeNotConnected(node_id)
        decision = permits(policy, facts, self._facts.regions)
        if not decision.permitted:
            raise NodeNotPermitted(node_id, decision.gate)
        if facts.draining is not False and action != "unload":
            raise NodeDraining(node_id)
        if len(self.pending(node_id)) >= MAX_PENDING:
            raise TooManyJobs(node_id)
        job = NodeJob(f"job_{secrets.token_hex(8)}", node_id, action, model, self._clock())
        self._on_given(job)
        try:
            await session.command(Command(job=job.id, action=action, model=model))
        except SessionClosed as error:
            raise NodeNotConnected(node_id) from error
        self._jobs.setdefault(node_id, deque(maxlen=KEPT)).append(job)
        return job

    def told(self, session: HubSession, event: Event) -> None:
        """A node says how a job goes on. Of what it was not given, or has ended, it may say what it likes."""
        jobs = self._jobs.get(session.node_id, deque())
        for place, job in enumerate(jobs):
            if job.id == event.job and not job.over:
                jobs[place] = replace(
                    job,
                    phase=event.phase,
                    done=event.done,
                    total=event.total,
                    error=event.error,
                    heard_at=self._clock(),
                )

    def latest(self, node_id: str) -> dict[str, NodeJob]:
        """The newest job of each model of a node."""
        return {job.model: job for job in self._jobs.get(node_id, ())}

    def pending(self, node_id: str) -> list[NodeJob]:
        """What a node still has to do, as far as is known."""
        since = self._clock() - SILENT_S
        return [job for job in self._jobs.get(node_id, ()) if not job.over and job.heard_at > since]
