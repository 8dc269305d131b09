"""Hot models are loaded on one more node: the Hub asks, the node decides.

Owns which node is asked, and what becomes of the asking. When anything is wished for is :mod:`hub.demand`'s
rule; who may be asked is judged by the policy of the requests that wait, at the moment of asking. Must not
know HTTP or how a node loads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hub.admission import Admitted
from hub.demand import Demand, Wish
from hub.errors import NodeDraining, NodeNotConnected, NodeNotPermitted, SpoolUnavailable, TooManyJobs
from hub.jobs import Jobs
from hub.live import LiveNode
from hub.registry import Registry
from tunnel.messages import DeviceStatus, ModelStatus

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
LOOKED_AT = 32
"""Cold nodes that are compared."""
SILENT_S = 900.0
"""Seconds after which a load of which nothing is heard counts as over."""
SPARED_S = 600.0
"""Seconds for which a node that could not load a model is not asked for it again."""


@dataclass(frozen=True, slots=True)
class _Load:
    """A load that was asked for."""

    node_id: str
    job: str
    model: str
    organisation_id: str


class Spreader:
    """Grants wishes. Belongs to one event loop.

    Args:
        demand: what is wished for.
        registry: the nodes.
        jobs: gives them work.
        clock: UTC seconds since the epoch.
    """

    def __init__(
        self, demand: Demand[Admitted], registry: Registry, jobs: Jobs, clock: Callable[[], float]
    ) -> None:
        self._demand = demand
        self._registry = registry
        self._jobs = jobs
        self._clock = clock
        self._loads: list[_Load] = []

    async def run(self) -> None:
        """Look each second, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look(loop.time())

    async def look(self, now: float) -> None:
        """Look once. ``now`` is monotonic seconds."""
        self._loads = [load for load in self._loads if not self._is_over(load)]
        under_way = [(load.model, load.organisation_id) for load in self._loads]
        for wish in self._demand.wishes(under_way, now):
            caller = wish.source
            if not caller.current or not caller.key.is_active(self._clock()):
                self._demand.drop(wish)
            elif await self._ask(wish):
                self._demand.granted(wish)
            else:
                self._demand.in_vain(wish, now)

    async def _ask(self, wish: Wish[Admitted]) -> bool:
        node_id = self._suited(wish)
        if node_id is None:
            return False
        try:
            job = await self._jobs.give(node_id, "load", wish.model, wish.source.policy)
        except (NodeDraining, NodeNotConnected, NodeNotPermitted, SpoolUnavailable, TooManyJobs):
            return False
        self._loads.append(_Load(node_id, job.id, wish.model, wish.organisation_id))
        log.info(
            "a further node was asked to load a model",
            extra={
                "event": "demand.spread",
                "node_id": node_id,
                "model": wish.model,
                "organisation_id": wish.organisation_id,
            },
        )
        return True

    def _suited(self, wish: Wish[Admitted]) -> str | None:
        """Of permitted nodes that fit, one that has to give up least for it."""
        asked = replace(wish.asked, policy=wish.source.policy, affinity=None, exclude=frozenset())
        ranked = [
            (place, node_id)
            for candidate in self._registry.chooser.find_cold(asked, LOOKED_AT)
            if (place := self._sacrifice(node_id := candidate.facts.node_id, wish.model)) is not None
        ]
        return min(ranked, key=lambda each: each[0])[1] if ranked else None

    def _sacrifice(self, node_id: str, model: str) -> tuple[bool, bool] | None:
        """Whether idle replicas must go for it, and whether it must be downloaded; none: not to be asked."""
        live = self._registry.shown([node_id]).get(node_id)
        offer = self._registry.model_status(node_id, model)
        if live is None or offer is None or self._jobs.pending(node_id) or self._has_failed(node_id, model):
            return None
        crowded = not _has_room(live.devices, offer)
        if crowded and _is_busy(live):
            return None  # what answers others there is not to be driven out
        return crowded, not offer.on_disk

    def _has_failed(self, node_id: str, model: str) -> bool:
        job = self._jobs.latest(node_id).get(model)
        return job is not None and job.phase == "failed" and self._clock() - job.heard_at < SPARED_S

    def _is_over(self, load: _Load) -> bool:
        job = self._jobs.latest(load.node_id).get(load.model)
        gone = load.node_id not in self._registry.connected_ids()
        ended = job is None or job.id != load.job or job.over or self._clock() - job.heard_at > SILENT_S
        return gone or ended

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """The loads that go on: node and model."""
        return ((load.node_id, load.model) for load in self._loads)


def _has_room(devices: tuple[DeviceStatus, ...], offer: ModelStatus) -> bool:
    """Whether some device has as much memory unreserved as the weights alone take: the node knows better."""
    return any(device.memory_budget - device.memory_reserved > offer.size_bytes for device in devices)


def _is_busy(live: LiveNode) -> bool:
    return live.in_flight > 0 or any(replica.running or replica.waiting for replica in live.replicas)
