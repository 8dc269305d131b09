"""`/playground`: people ask a model themselves, under one of their organisation's keys.

Owns the page, who may use it, and what it is told while it waits. There is no way of its own to a node: what
is asked goes through the endpoint of `/v1/chat/completions`, which only learns in another way who asks. The
key's rules, limits, usage and receipts are those of any request with it. Nothing that is said is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import Message, Receive, Scope, Send

from hub import refusals
from hub.admission import Admitted
from hub.api.edge import request_id
from hub.api.inference import Inference
from hub.api.models import Offer, progress
from hub.api.request import MAX_MODEL_CHARACTERS, Headers, wishes
from hub.composition import Hub
from hub.errors import RequestFailed, SpoolUnavailable, StorageUnavailable
from hub.evidence import judge
from hub.policy import Fleet, Narrowing
from hub.portal.errors import FormRefused
from hub.portal.key_preview import rule_words
from hub.portal.keys import own_key
from hub.portal.pages import PortalRoute, hub_of, page
from hub.portal.presenting import fleet_text
from hub.portal.regions import read_regions
from hub.portal.security import PAGE_HEADERS
from hub.portal.sessions import MayAsk, Posted, SentByScript, Visitor, is_still
from hub.router import ModelState
from hub.storage.records import ApiKey
from hub.tallies import Tally
from tunnel.receipts import MAX_RECEIPT_CHARACTERS

CHAT = "/v1/chat/completions"

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """A key that may be asked under."""

    id: str
    name: str
    fleet: str


@router.get("/playground")
async def playground(request: Request, visitor: MayAsk) -> Response:
    """Show the playground; the address may name a key, a model and a region to begin with."""
    hub, known = hub_of(request), await read_regions(request)
    stored = await hub.storage.keys.list(visitor.organisation.id)
    keys = [key for key in stored if key.is_active(hub.clock())]
    asked = request.query_params
    return page(
        "playground.html",
        visitor=visitor,
        here="/playground",
        keys=[KeyChoice(key.id, key.name, fleet_text(key.fleet)) for key in keys],
        chosen=_first_choice(keys, asked.get("key", "")),
        model=asked.get("model", "")[:MAX_MODEL_CHARACTERS],
        region=asked.get("region", ""),
        region_rows=known.rows,
    )


def _first_choice(keys: Sequence[ApiKey], wanted: str) -> str:
    """The key that is named, else one for the organisation's own nodes only, else the newest."""
    named = [key.id for key in keys if key.id == wanted]
    narrow = [key.id for key in keys if key.fleet == Fleet.OWN]
    return next(iter([*named, *narrow, *(key.id for key in keys)]), "")


@router.post("/playground/{key_id}/chat")
async def chat(request: Request, visitor: MayAsk, _script: SentByScript, key_id: str) -> Response:
    """Answer as `/v1/chat/completions` does a request that brings the key's secret."""
    hub, key = hub_of(request), await own_key(request, visitor, key_id)

    async def caller(_headers: Headers) -> Admitted:
        admitted = await hub.admission.admit(key)
        _note(hub, key, request_id(request))
        return admitted

    async def look_again() -> None:
        await _check_visitor(request, visitor)

    return _Passed(Inference(hub, CHAT, "chat", caller, look_again))


async def _check_visitor(request: Request, visitor: Visitor) -> None:
    """Hold to their session who has waited for a node, or whose question took its time.

    Raises:
        RequestFailed: they are signed out or have another role; or nobody can say.
    """
    try:
        is_there = await is_still(request, visitor)
    except StorageUnavailable:
        raise refusals.database_unavailable() from None
    if not is_there:
        words = "You are signed out, or your role is another by now. Reload the page."
        raise RequestFailed("invalid_api_key", words, param="session")


def _note(hub: Hub, key: ApiKey, asked: str) -> None:
    """Write down who uses the key: its secret says so of no one here. What cannot be written is not asked."""
    try:
        hub.journal.note("playground.asked", key.id, of=key.organisation_id, reference=asked)
    except SpoolUnavailable as error:
        raise RequestFailed(
            "internal_error",
            "The Hub cannot write its audit log: its disk is full or cannot be written. Tell its operator.",
        ) from error


class _Passed(Response):
    """What another part of the Hub answers, with the headers that all of the portal's answers carry."""

    def __init__(self, answer: Inference) -> None:
        super().__init__()
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let it answer."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                given = {name for name, _ in headers}
                headers += [(name, value) for name, value in _PAGE_HEADERS if name not in given]
                message = {**message, "headers": headers}
            await send(message)

        await self._answer(scope, receive, send_with_headers)


_PAGE_HEADERS = [(name.encode(), value.encode()) for name, value in PAGE_HEADERS.items()]


@router.get("/playground/{key_id}/models")
async def models(request: Request, visitor: MayAsk, key_id: str) -> Response:
    """Say what a key allows, and which models that chat it may use now (JSON)."""
    hub, known = hub_of(request), await read_regions(request)
    key = await own_key(request, visitor, key_id)
    policy = key.policy
    offered = list(hub.registry.chooser.offered(policy, _narrowing(request)))
    now = [
        _choice(hub, each.model, state_of(each.tally))
        for each in sorted(offered, key=lambda each: _STATES.index(state_of(each.tally)))
        if key.allows_model(each.model) and _chats(hub, each.model, each.node_ids)
    ]
    there = {each.model for each in offered}
    away = [
        _choice(hub, spec.id, "away")
        for spec in hub.catalog
        if spec.id not in there and key.allows_model(spec.id) and "chat" in spec.capabilities
    ]
    return JSONResponse(
        {
            "rule": "" if policy is None else rule_words(policy, visitor.organisation.name, known.names),
            "models": now + away,
        }
    )


_STATES = ("ready", "full", "warming", "cold", "unable")


def state_of(tally: Tally) -> str:
    """The best that any of the nodes has to give."""
    return next((state for state in _STATES if getattr(tally, state)), "unable")


def _choice(hub: Hub, model: str, state: str) -> dict[str, str]:
    spec = hub.catalog.get(model)
    return {"id": model, "name": spec.name if spec else model, "state": state}


def _chats(hub: Hub, model: str, node_ids: Sequence[str]) -> bool:
    """Whether a model takes chats: by the catalog, or by the word of a node that was permitted."""
    if (spec := hub.catalog.get(model)) is not None:
        return "chat" in spec.capabilities
    reports = (hub.registry.model_status(node_id, model) for node_id in node_ids)
    return any(report is not None and "chat" in report.capabilities for report in reports)


@router.get("/playground/{key_id}/warming")
async def warming(request: Request, visitor: MayAsk, key_id: str) -> Response:
    """Say how far the readiest node that the key may use is with a model (JSON), as `/v1` says it."""
    hub, key = hub_of(request), await own_key(request, visitor, key_id)
    model = request.query_params.get("model", "")[:MAX_MODEL_CHARACTERS]
    if not model or not key.allows_model(model):
        return JSONResponse({"phase": "queued"})
    chooser = hub.registry.chooser
    for offered in chooser.offered(key.policy, _narrowing(request), model=model):
        for node_id in offered.node_ids:
            if (report := hub.registry.model_status(node_id, model)) is not None:
                state = ModelState(report.state)
                return JSONResponse(
                    progress(Offer(model, state, [report], hub.registry.eta_s(node_id, model)))
                )
    return JSONResponse({"phase": "queued"})


def _narrowing(request: Request) -> Narrowing:
    """What the question itself asks for on top of the key's rules, read as requests' headers are."""
    region = request.query_params.get("region", "")
    headers = [(b"x-porten-region", region.encode())] if region else []
    try:
        return wishes(Headers(headers), warmup_budget_s=0).narrowing
    except RequestFailed as failure:
        raise FormRefused(failure.message) from failure


@router.post("/playground/verdict")
async def verdict(request: Request, visitor: MayAsk, form: Posted) -> Response:
    """Check a receipt against this Hub's key, and say what it proves (JSON)."""
    hub, known = hub_of(request), await read_regions(request)
    token = form.text("receipt")[: MAX_RECEIPT_CHARACTERS + 1]
    [found] = judge([token], [hub.key.public_key()])
    if found.verified is None:
        return JSONResponse({"holds": False, "words": f"It does not hold: {found.reason}."})
    receipt = found.verified.receipt
    return JSONResponse(
        {
            "holds": True,
            "words": "It holds: signed by the node, for which this Hub vouches.",
            "node": await _name_of(hub, visitor, receipt.node_id),
            "region": known.name(receipt.region),
            "model": receipt.model,
        }
    )


async def _name_of(hub: Hub, visitor: Visitor, node_id: str) -> dict[str, str | None]:
    """Of its own nodes an organisation knows the name and the page; of others no more than the id."""
    node = await hub.storage.nodes.get(node_id)
    if node is None or node.organisation_id != visitor.organisation.id:
        return {"name": node_id, "link": None}
    return {"name": node.name, "link": f"/nodes/{node.id}"}
