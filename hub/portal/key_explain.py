"""`/keys/{key_id}/explain`: why a request with a key runs, or does not, on each of the organisation's nodes.

Owns the page, and whose nodes it names: the visitor's own, in detail. Of anybody else's it says nothing,
and to an operator no more than how many. What is decided, and its words, are `hub.explain`'s.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.api.request import MAX_MODEL_CHARACTERS
from hub.composition import Hub
from hub.errors import NotFound
from hub.explain import Verdict, key_refusal
from hub.policy import Fleet, Narrowing
from hub.portal.key_preview import rule_words
from hub.portal.pages import PortalRoute, hub_of, page
from hub.portal.presenting import counted
from hub.portal.regions import RegionsView, read_regions
from hub.portal.sessions import SignedIn, Visitor
from hub.storage.records import ApiKey, Node
from hub.verdicts import others_counted, own_verdicts

router = APIRouter(route_class=PortalRoute, include_in_schema=False)

_TONES = {True: "good", False: "bad"}


@dataclass(frozen=True, slots=True)
class Question:
    """What the form asks: a model, and what the request's own headers would ask for."""

    model: str = ""
    region: str = ""
    node: str = ""

    @classmethod
    def of(cls, asked: Mapping[str, str]) -> "Question":
        """Read it from an address; what is too long for any request is cut."""
        model, region, node = (asked.get(name, "").strip() for name in ("model", "region", "node"))
        return cls(model[:MAX_MODEL_CHARACTERS], region[:MAX_MODEL_CHARACTERS], node[:MAX_MODEL_CHARACTERS])

    @property
    def narrowing(self) -> Narrowing:
        """The same for the policy."""
        return Narrowing(region=self.region or None, node_id=self.node or None)


@dataclass(frozen=True, slots=True)
class Row:
    """One of the visitor's own nodes, and what becomes of the request there."""

    id: str
    name: str
    decided: str
    tone: str
    words: str


@router.get("/keys/{key_id}/explain")
async def explain_key(request: Request, visitor: SignedIn, key_id: str) -> Response:
    """Say for each node of the organisation whether a request would run there now, and if not, why."""
    hub, known = hub_of(request), await read_regions(request)
    key = await hub.storage.keys.get(key_id)
    if key is None or key.organisation_id != visitor.organisation.id:
        raise NotFound("key", key_id)
    question = Question.of(request.query_params)
    own = await hub.storage.nodes.list(visitor.organisation.id)
    return page(
        "key_explain.html",
        visitor=visitor,
        here="/keys",
        key=key,
        rule=_rule(key, visitor, known),
        question=question,
        models=[spec.id for spec in hub.catalog],
        own=own,
        region_rows=known.rows,
        refusal=key_refusal(key, question.model, hub.clock()) if question.model else None,
        rows=_rows(hub, key, question, own) if question.model else None,
        others=_others(hub, key, question, visitor) if question.model else None,
    )


def _rule(key: ApiKey, visitor: Visitor, known: RegionsView) -> str:
    policy = key.policy
    if policy is None:
        return "Its rules cannot be read, so it refuses every request. Revoke it and create another."
    return rule_words(policy, visitor.organisation.name, known.names)


def _rows(hub: Hub, key: ApiKey, question: Question, own: Sequence[Node]) -> list[Row]:
    names = {node.id: node.name for node in own}
    verdicts = own_verdicts(
        hub.registry,
        hub.config.region_authority,
        key,
        own,
        model=question.model,
        narrowing=question.narrowing,
    )
    return [_row(verdict, names[verdict.facts.node_id]) for verdict in verdicts]


def _row(verdict: Verdict, name: str) -> Row:
    decided = "Could serve" if verdict.serves else "Permitted" if verdict.permitted else "Refused"
    tone = "warn" if verdict.permitted and not verdict.serves else _TONES[verdict.serves]
    gate = "" if verdict.reason is None or verdict.permitted else f" ({verdict.reason.value})"
    words = f"{verdict.words[0].upper()}{verdict.words[1:]}."
    return Row(verdict.facts.node_id, name, decided + gate, tone, words)


def _others(hub: Hub, key: ApiKey, question: Question, visitor: Visitor) -> str:
    """What is said of other organisations' nodes: to an operator how many, to others that they may serve."""
    if key.fleet == Fleet.OWN:
        return ""
    if not visitor.account.is_operator:
        return "Other owners' machines may serve it too. Of those nothing is told."
    others = others_counted(hub.registry, key, question.model, question.narrowing)
    return (
        f"Of other organisations' {counted(others.nodes, 'node')}, it may use {others.permitted}; "
        f"{others.serving} could serve it now."
    )
