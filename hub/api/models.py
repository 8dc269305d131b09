"""`/v1/models`: what a key may use, and how far along it is.

Owns the merging of several nodes' reports into one answer a model. Whether a node counts is the policy's
word, asked for each node and each request; a model that only forbidden nodes offer does not exist here, and
forbidden nodes cost no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route

from hub import refusals
from hub.admission import Admitted
from hub.api.protocols import OTHERS
from hub.api.request import Headers, wishes
from hub.composition import Hub
from hub.policy import Narrowing
from hub.router import Candidate, ModelState
from tunnel.messages import ModelStatus

_PROTOCOLS = {protocol.offered_as for protocol in OTHERS.values()}
_READIEST = (ModelState.READY, ModelState.WARMING, ModelState.COLD)
_PHASES = {"queued": "queued", "downloading": "downloading", "verifying": "downloading", "failed": "failed"}


@dataclass(frozen=True, slots=True)
class Offer:
    """One model on the permitted nodes that offer it, the readiest node's word first."""

    model: str
    state: ModelState
    reports: Sequence[ModelStatus]
    eta_s: float | None


def offers(hub: Hub, admitted: Admitted, narrowing: Narrowing) -> list[Offer]:
    """Everything that the caller may use now, by name."""
    offering = hub.registry.chooser.offering(admitted.policy, narrowing)
    found = (_merged(hub, model, nodes) for model, nodes in offering if admitted.key.allows_model(model))
    return [offer for offer in found if offer is not None]


def _offer(hub: Hub, admitted: Admitted, narrowing: Narrowing, model: str) -> Offer | None:
    offering = hub.registry.chooser.offering(admitted.policy, narrowing, model=model)
    return next((_merged(hub, model, nodes) for _, nodes in offering), None)


def _merged(hub: Hub, model: str, nodes: Iterable[Candidate]) -> Offer | None:
    usable = [node for node in nodes if _is_able(node)]
    usable.sort(key=lambda candidate: _READIEST.index(candidate.model_state or ModelState.COLD))
    reports = [
        report
        for node in usable
        if (report := hub.registry.model_status(node.facts.node_id, model)) is not None
    ]
    if not usable or not reports:
        return None
    eta_s = hub.registry.eta_s(usable[0].facts.node_id, model)
    return Offer(model, usable[0].model_state or ModelState.COLD, reports, eta_s)


def _is_able(candidate: Candidate) -> bool:
    state = candidate.model_state
    if candidate.facts.draining is not False:
        return False
    return candidate.online and state is not None and (candidate.fits or state is not ModelState.COLD)


def routes(hub: Hub) -> list[BaseRoute]:
    """The model endpoints. A model's name may hold slashes, so the longer path stands first."""

    async def every(request: Request) -> JSONResponse:
        admitted, narrowing = await _caller(hub, request)
        data = [_shown(hub, offer) for offer in offers(hub, admitted, narrowing)]
        return JSONResponse({"object": "list", "data": data})

    async def one(request: Request) -> JSONResponse:
        return JSONResponse(_shown(hub, await _asked_for(hub, request)))

    async def warming(request: Request) -> JSONResponse:
        return JSONResponse(progress(await _asked_for(hub, request)))

    return [
        Route("/v1/models", every, methods=["GET"]),
        Route("/v1/models/{model:path}/warming", warming, methods=["GET"]),
        Route("/v1/models/{model:path}", one, methods=["GET"]),
    ]


async def _caller(hub: Hub, request: Request) -> tuple[Admitted, Narrowing]:
    headers = Headers(request.scope["headers"])
    admitted = await hub.admission.authenticate(headers.get("authorization"))
    return admitted, wishes(headers, warmup_budget_s=0).narrowing


async def _asked_for(hub: Hub, request: Request) -> Offer:
    """The model in the path; one that the caller may not use looks like one that does not exist."""
    admitted, narrowing = await _caller(hub, request)
    model: str = request.path_params["model"]
    offer = _offer(hub, admitted, narrowing, model) if admitted.key.allows_model(model) else None
    if offer is None:
        raise refusals.model_not_found(model)
    return offer


def _shown(hub: Hub, offer: Offer) -> dict[str, Any]:
    report = offer.reports[0]
    spec = hub.catalog.get(offer.model)
    return {
        "id": offer.model,
        "object": "model",
        "created": 0,  # OpenAI's clients need the field; a catalog entry has no date
        "owned_by": "porten",
        "name": spec.name if spec else offer.model,
        "state": offer.state.value,
        "context_length": report.context_length,
        "capabilities": sorted({*(spec.capabilities if spec else report.capabilities), *_spoken(offer)}),
    }


def _spoken(offer: Offer) -> set[str]:
    """The protocols that the engines of some permitted node speak: a request for one finds it."""
    return {word for report in offer.reports for word in report.capabilities if word in _PROTOCOLS}


def progress(offer: Offer) -> dict[str, Any]:
    """How far the readiest node is. The percentage is of bytes while they are counted, else unknown."""
    report = offer.reports[0]
    total = report.total_bytes
    counted = offer.state is ModelState.WARMING and total > 0
    return {
        "model": offer.model,
        "state": offer.state.value,
        "phase": _phase(offer.state, report.phase),
        "bytes_done": report.done_bytes,
        "bytes_total": total,
        "percent": round(100 * min(report.done_bytes / total, 1), 1) if counted else None,
        "eta_s": None if offer.eta_s is None else round(offer.eta_s, 1),
        "nodes": len(offer.reports),
    }


def _phase(state: ModelState, phase: str) -> str:
    if state is ModelState.READY:
        return "ready"
    return _PHASES.get(phase, "loading" if state is ModelState.WARMING else "cold")
