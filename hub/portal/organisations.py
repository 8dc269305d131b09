"""`/organisations`: who owns nodes and keys on this Hub, for its operators.

Owns the list, making one, its name and its ceiling. Counts are all that is told of an organisation's keys.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.errors import AlreadyExists, InvalidInput, NotFound
from hub.identifiers import checked_name
from hub.portal.charts import BudgetView, budget_view
from hub.portal.forms import Form
from hub.portal.key_form import LIMITS, limit_texts, read_limits
from hub.portal.pages import PortalRoute, field_problem, hub_of, page, see_other
from hub.portal.presenting import limit_words
from hub.portal.sessions import Operator, Posted, Visitor
from hub.storage.records import Organisation

MOST_ORGANISATIONS = 500

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class OrganisationForm:
    """The fields as they stand in the form."""

    name: str = ""
    requests_per_minute: str = ""
    tokens_per_minute: str = ""
    concurrent_requests: str = ""
    monthly_tokens: str = ""

    @classmethod
    def of(cls, form: Form) -> "OrganisationForm":
        """Keep what was typed."""
        return cls(form.text("name"), *(form.text(name) for name, _, _ in LIMITS))

    @property
    def limits(self) -> dict[str, str]:
        """The fields of the limits."""
        return {name: getattr(self, name) for name, _, _ in LIMITS}


@dataclass(frozen=True, slots=True)
class OrganisationRow:
    """An organisation as the list shows it; `tokens` are those of this month."""

    id: str
    name: str
    nodes: int
    keys: int
    tokens: int
    limits: tuple[str, ...]
    budget: BudgetView | None
    created_at: float


@router.get("/organisations")
async def organisations(request: Request, visitor: Operator) -> Response:
    """List the organisations, with the form for a new one."""
    return await _list_page(request, visitor, "", {})


@router.post("/organisations")
async def create(request: Request, visitor: Operator, form: Posted) -> Response:
    """Make an organisation."""
    hub, typed = hub_of(request), form.text("name")
    try:
        made = await hub.storage.organisations.create(checked_name(typed), now=hub.clock())
    except (InvalidInput, AlreadyExists) as error:
        return await _list_page(request, visitor, typed, _name_problem(error))
    return see_other(f"/organisations?saved={made.id}")


def _name_problem(error: InvalidInput | AlreadyExists) -> dict[str, str]:
    if isinstance(error, InvalidInput):
        return field_problem(error)
    return {"name": "There is an organisation of that name already. Names tell them apart: choose another."}


async def _list_page(request: Request, visitor: Visitor, name: str, errors: Mapping[str, str]) -> Response:
    hub, text = hub_of(request), request.query_params.get("find", "").strip()[:100]
    every = await hub.storage.organisations.list()
    nodes, keys = await hub.storage.nodes.counts(), await hub.storage.keys.counts(hub.clock())
    found = [each for each in every if text.casefold() in each.name.casefold() or text == each.id]
    now, used = hub.clock(), hub.budgets.tokens.used
    rows = [
        _row(each, nodes.get(each.id, 0), keys.get(each.id, 0), used(each.id, now))
        for each in found[:MOST_ORGANISATIONS]
    ]
    asked = request.query_params.get("saved")
    return page(
        "organisations.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/organisations",
        rows=rows,
        total=len(every),
        hidden=max(len(found) - MOST_ORGANISATIONS, 0),
        text=text,
        name=name,
        errors=errors,
        saved=next((each.name for each in every if each.id == asked), None),
    )


def _row(found: Organisation, nodes: int, keys: int, tokens: int) -> OrganisationRow:
    ceiling = found.limits.monthly_tokens
    return OrganisationRow(
        id=found.id,
        name=found.name,
        nodes=nodes,
        keys=keys,
        tokens=tokens,
        limits=limit_words(found.limits),
        budget=None if ceiling is None else budget_view(found.name, tokens, ceiling),
        created_at=found.created_at,
    )


@router.get("/organisations/{organisation_id}")
async def edit(request: Request, visitor: Operator, organisation_id: str) -> Response:
    """Show an organisation's name and ceiling, to change."""
    found = await _found(request, organisation_id)
    form = OrganisationForm(found.name, *limit_texts(found.limits))
    return _edit_page(visitor, found, form, {})


@router.post("/organisations/{organisation_id}")
async def change(request: Request, visitor: Operator, form: Posted, organisation_id: str) -> Response:
    """Change them; a ceiling counts for the next request."""
    hub, found, typed = hub_of(request), await _found(request, organisation_id), OrganisationForm.of(form)
    errors: dict[str, str] = {}
    limits = read_limits(typed.limits, errors)
    try:
        name = checked_name(typed.name)
        if errors:
            return _edit_page(visitor, found, typed, errors)
        if name != found.name:
            await hub.storage.organisations.rename(found.id, name)
    except (InvalidInput, AlreadyExists) as error:
        return _edit_page(visitor, found, typed, errors | _name_problem(error))
    if limits != found.limits:
        await hub.storage.organisations.set_limits(found.id, limits)
        hub.admission.forget()  # copies of its keys hold the ceiling before
    return see_other(f"/organisations?saved={found.id}")


async def _found(request: Request, organisation_id: str) -> Organisation:
    found = await hub_of(request).storage.organisations.get(organisation_id)
    if found is None:
        raise NotFound("organisation", organisation_id)
    return found


def _edit_page(
    visitor: Visitor, found: Organisation, form: OrganisationForm, errors: Mapping[str, str]
) -> Response:
    return page(
        "organisation_edit.html",
        status=422 if errors else 200,
        visitor=visitor,
        here="/organisations",
        organisation=found,
        form=form,
        errors=errors,
        limits=LIMITS,
    )
