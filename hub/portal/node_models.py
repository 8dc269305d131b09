"""A node's models on its page, and the buttons that load, unload and download them.

Owns that part of the page. Who may give a node which work is `hub.jobs_by_hand`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.errors import (
    InvalidInput,
    NodeDraining,
    NodeNotConnected,
    NodeNotPermitted,
    SpoolUnavailable,
    TooManyJobs,
)
from hub.jobs import Action, NodeJob
from hub.jobs_by_hand import give_by_hand
from hub.portal.errors import FormRefused, JobRefused
from hub.portal.node_view import NodeView, WarmingView
from hub.portal.pages import PortalRoute, hub_of, see_other
from hub.portal.presenting import bytes_text
from hub.portal.security import safe_next
from hub.portal.sessions import MayChange, Posted
from tunnel.messages import ModelStatus

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

ACTIONS: Mapping[Action, str] = {"load": "Load", "unload": "Unload", "pull": "Download"}
_STATES = {"cold": ("Loads on demand", "off"), "warming": ("Warming", "warn"), "ready": ("Ready", "good")}
_UNFIT = ("Does not fit", "bad")
_NOT_OFFERED = "The node does not offer that model any more. Open its page again."


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model of a node; `actions` are what may be asked for now."""

    name: str
    state: str
    tone: str
    size: str
    phase: str | None
    percent: int | None
    failed: str | None
    actions: tuple[tuple[Action, str], ...]


def model_rows(
    models: Sequence[ModelStatus], view: NodeView, jobs: Mapping[str, NodeJob]
) -> tuple[ModelRow, ...]:
    """Return what a node's page says of its models, those that do something first."""
    warming = {each.model: each for each in view.warming}
    order = {"ready": 0, "warming": 1, "cold": 2}
    return tuple(
        _row(model, warming.get(model.model), jobs.get(model.model), on_drain=view.drain is not None)
        for model in sorted(models, key=lambda model: (order[model.state], model.model))
    )


def _row(model: ModelStatus, warming: WarmingView | None, job: NodeJob | None, *, on_drain: bool) -> ModelRow:
    state, tone = _STATES[model.state] if model.fits or model.state != "cold" else _UNFIT
    busy = job if job is not None and not job.over else None
    return ModelRow(
        name=model.model,
        state=state,
        tone=tone,
        size=f"{bytes_text(model.size_bytes)}{'' if model.on_disk else ', not downloaded'}",
        phase=warming.phase if warming else busy.phase if busy else None,
        percent=warming.percent if warming else None,
        failed=job.error or "it failed" if job is not None and job.phase == "failed" else None,
        actions=() if busy else _actions(model, on_drain=on_drain),
    )


def _actions(model: ModelStatus, *, on_drain: bool) -> tuple[tuple[Action, str], ...]:
    wanted: list[Action] = []
    if model.state == "ready":
        wanted.append("unload")
    elif model.state == "cold" and not on_drain:
        wanted += [] if model.on_disk else ["pull"]
        wanted += ["load"] if model.fits else []
    return tuple((action, ACTIONS[action]) for action in wanted)


@router.post("/nodes/{node_id}/models")
async def give_job(request: Request, visitor: MayChange, form: Posted, node_id: str) -> Response:
    """Give a node a job with one of the models it offers."""
    hub, organisation = hub_of(request), visitor.organisation.id
    action: Action | None = next((each for each in ACTIONS if each == form.text("action")), None)
    if action is None:
        raise FormRefused(_NOT_OFFERED)
    node = await hub.storage.nodes.get(node_id)
    try:
        await give_by_hand(
            hub.jobs, hub.registry, node, organisation, action=action, model=form.text("model")
        )
    except InvalidInput as error:
        raise FormRefused(_NOT_OFFERED) from error
    except (NodeDraining, NodeNotConnected, NodeNotPermitted, SpoolUnavailable, TooManyJobs) as error:
        raise JobRefused(f"{str(error).capitalize()}.") from error
    return see_other(safe_next(form.get("back"), f"/nodes/{node_id}#models"))
