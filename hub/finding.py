"""A node for one request: asked for, waited for, and refused with the reason.

Owns the nodes that a request has tried, its turn in the line and the place that it takes. Who may serve is
judged by the policy at each choice anew; between the answer and the taking of the place nothing is awaited.
Must not know sessions, tickets or HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from hub import refusals
from hub.admission import Admission, Admitted, check_model
from hub.affinity import conversation_key
from hub.calls import Call, check_capabilities
from hub.choosing import Asked
from hub.demand import Demand
from hub.errors import RequestFailed
from hub.policy import NodeFacts
from hub.queueing import WaitingRoom
from hub.registry import Occupied, Registry
from hub.router import Candidate, RefusalCode, Selection
from hub.storage.records import ApiKey
from models.catalog import Catalog

MAX_PASSED_OVER = 64
"""Nodes looked at for one request whose engines lack the endpoint."""

RefusalLog = Callable[[str, ApiKey, str | None, str, Mapping[str, int]], None]
"""Told of each refusal by policy: request, key, model (``None`` where it is none that the Hub knows), error
code, and the caller's own nodes by gate."""


@dataclass(slots=True, kw_only=True)
class Places:
    """What all requests share on their way to a place.

    Attributes:
        registry: the live nodes.
        admission: confirms a caller again after every wait.
        catalog: the models and what they can do.
        waiting: the lines for models whose permitted nodes are all full.
        demand: told of every request that needs a place.
        ring_secret: by which conversations come to nodes.
        queue_timeout_s: seconds a request waits for a permitted node that is full.
        on_refused: told of every refusal by policy, for the audit log; it must not fail.
    """

    registry: Registry
    admission: Admission
    catalog: Catalog
    waiting: WaitingRoom
    demand: Demand[Admitted]
    ring_secret: bytes
    queue_timeout_s: float
    on_refused: RefusalLog

    def check_model(self, request_id: str, admitted: Admitted, model: str) -> None:
        """Hold a request to its key's own list of models; a refusal is told like any other of the policy.

        Raises:
            RequestFailed: ``model_not_allowed``.
        """
        try:
            check_model(admitted, model)
        except RequestFailed as failure:
            known = model if model in self.catalog else None
            self.on_refused(request_id, admitted.key, known, failure.code, {})
            raise


class Finder:
    """Finds nodes for one request, each time one that it has not `tried`."""

    def __init__(self, places: Places, call: Call) -> None:
        self._places = places
        self._call = call
        self._held = ExitStack()
        self._mute: set[str] = set()
        """Nodes that offer the model on engines without the endpoint."""
        organisation_id = call.admitted.key.organisation_id
        self._affinity = conversation_key(places.ring_secret, organisation_id, call.model, call.body)
        self.tried: set[str] = set()

    def release(self) -> None:
        """Give back the place that is held, if any."""
        self._held.close()

    async def choose(self, failure: RequestFailed | None = None) -> tuple[Admitted, NodeFacts]:
        """Ask until a node is named, nothing is worth waiting for, or the queue's time is up.

        The place on the node is taken when this returns, and is the caller's to `release`, whatever comes.

        Args:
            failure: of the node that was tried before: told where there is no other, without a wait.

        Raises:
            RequestFailed: nobody may and can serve, or the caller may not ask any more.
        """
        places, loop = self._places, asyncio.get_running_loop()
        admitted = await self._confirmed(self._call.admitted)
        asked = self.asked(admitted)
        chosen = self._take(asked)
        places.demand.asked(asked, admitted, chosen, loop.time())
        give_up = loop.time() + places.queue_timeout_s
        while chosen is None:
            asked = self.asked(admitted)  # without the nodes that were just passed over
            if failure is not None or not places.registry.chooser.is_passing(asked):
                raise failure or self._refused(asked)
            place = await self._wait(asked, admitted, give_up)
            admitted = await self._confirmed(admitted)
            asked = self.asked(admitted)
            chosen = self._take(asked, place)
            if chosen is None and loop.time() >= give_up:
                raise self._refused(asked)
        return admitted, chosen.facts

    async def _confirmed(self, admitted: Admitted) -> Admitted:
        """The caller as of now. The key's own list of models may have changed while this one waited.

        Who asks is looked at first, which always waits: the key, where nothing changed, without a wait. Where
        it did wait for the key, who asks is looked at once more.
        """
        confirmed = await self._looked_at(admitted)
        while self._call.look_again is not None and confirmed is not admitted:
            admitted, confirmed = confirmed, await self._looked_at(confirmed)
        self._places.check_model(self._call.request_id, confirmed, self._call.model)
        return confirmed

    async def _looked_at(self, admitted: Admitted) -> Admitted:
        if self._call.look_again is not None:
            await self._call.look_again()
        return await self._places.admission.confirm(admitted)

    async def _wait(self, asked: Asked, admitted: Admitted, give_up: float) -> Occupied | None:
        """Wait for a place; none where it is time to look again, be it for the last time."""
        try:
            async with asyncio.timeout_at(give_up):
                place = await self._places.waiting.wait(asked, admitted.key.organisation_id)
        except TimeoutError:
            return None
        return None if place is None else self._held.enter_context(place)

    def _take(self, asked: Asked, place: Occupied | None = None) -> Candidate | None:
        """Take a place on the node that is chosen: the one that came, if that may still be used."""
        registry = self._places.registry
        if place is not None:
            candidate = registry.chooser.is_still_able(asked, place.node_id)
            if candidate is not None and not self._is_mute(place.node_id):
                self._check_offer(place.node_id)
                return candidate
            self._held.close()  # for the next in line
        while (found := registry.chooser.find(asked)) is not None and self._is_mute(found.node_id):
            asked = replace(asked, exclude=frozenset(self.tried | self._mute))
        if found is None:
            return None
        self._check_offer(found.node_id)
        self._held.enter_context(registry.occupy(found.node_id, asked.model))
        return found.candidate

    def asked(self, admitted: Admitted) -> Asked:
        """What the request asks of a node now, under its caller's present rules."""
        call = self._call
        return Asked(
            policy=admitted.policy,
            model=call.model,
            narrowing=call.narrowing,
            exclude=frozenset(self.tried | self._mute),
            tie_break=call.request_id,
            affinity=self._affinity,
        )

    def _is_mute(self, node_id: str) -> bool:
        """Whether a node's engine lacks the endpoint: it is passed over, and not chosen again."""
        word, offer = self._call.offered_as, self._places.registry.model_status(node_id, self._call.model)
        if word is None or offer is None or word in offer.capabilities:
            return False
        if len(self._mute) >= MAX_PASSED_OVER:
            raise refusals.endpoint_not_offered(self._call.path)
        self._mute.add(node_id)
        return True

    def _check_offer(self, node_id: str) -> None:
        """What the catalog does not know of a model, the node that offers it does."""
        offer = self._places.registry.model_status(node_id, self._call.model)
        if offer is not None and self._call.model not in self._places.catalog:
            check_capabilities(self._call, offer.capabilities)

    def _refused(self, asked: Asked) -> RequestFailed:
        chooser = self._places.registry.chooser
        refusal = chooser.refusal(asked)
        if isinstance(refusal, Selection):
            raise RuntimeError("a node was found that the index does not have")  # noqa: TRY004 - not of a wrong type
        if refusal.code is RefusalCode.OVERLOADED:
            return refusals.overloaded()
        if self._mute:
            return refusals.endpoint_not_offered(self._call.path)
        if asked.model not in self._places.catalog and not chooser.is_offered(asked):
            known, failure = None, refusals.model_not_found(asked.model)
        else:
            known, failure = asked.model, refusals.no_available_node(asked.model, refusal)
        counts = {reason.value: count for reason, count in refusal.counts.items()}
        self._places.on_refused(self._call.request_id, self._call.admitted.key, known, failure.code, counts)
        return failure
