"""``porten-hub explain``.

Owns its words and options; see :mod:`hub.cli`. What is decided is :mod:`hub.explain`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import typer

from hub.explain import Verdict, explain, key_refusal
from hub.operations import Workplace, absent_models, find_key, read_id
from hub.policy import Narrowing, RegionAuthority
from hub.storage.records import ApiKey, Node
from hub.terminal import config_of, explained, say, show_table, work

_JUDGED = (
    "Judged from the database, as the policy is. What only the running Hub knows is not in it: whether a "
    "node is online, offers the model, has room, is full. Explain, beside the key in the portal, says that."
)


@dataclass(frozen=True, slots=True)
class _Explained:
    """A key, and what becomes of its request node by node."""

    key: ApiKey
    organisation: str
    key_refusal: str | None
    verdicts: tuple[Verdict, ...]
    nodes: dict[str, Node]
    owners: dict[str, str]


def explain_key(
    context: typer.Context,
    *,
    key: Annotated[
        str, typer.Option(help="Its id, the beginning that lists show, or its name; never its secret.")
    ],
    model: Annotated[str, typer.Option(help="The model that the request asks for.")],
    region: Annotated[str | None, typer.Option(help="What X-Porten-Region would ask for.")] = None,
    node: Annotated[
        str | None, typer.Option(help="What X-Porten-Node would ask for: a node's id. Only it is shown.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As one JSON document, for programs.")] = False,
) -> None:
    """Say node by node whether a key's request may run there, and which gate refuses.

    The decision is the one that requests meet. What only a running Hub knows (whether a node is online,
    offers the model, has room) is not looked at here.

    [bold]Examples[/bold]

    porten-hub explain --key my-app --model smollm2-135m-instruct

    porten-hub explain --key key_… --model m --region eu-de --json
    """
    with explained():
        if node is not None:
            read_id(node, "node", "node")
        unknown = bool(absent_models(config_of(context), [model]))
    narrowing, authority = Narrowing(region=region, node_id=node), config_of(context).region_authority
    found = work(context, lambda place: _explain(place, key, model, narrowing, authority))
    if as_json:
        typer.echo(msgspec.json.encode(_document(found, model, narrowing)))
        return
    _show(found, model, unknown=unknown)


async def _explain(
    place: Workplace, text: str, model: str, narrowing: Narrowing, authority: RegionAuthority
) -> _Explained:
    now, storage = place.clock(), place.storage
    key = await find_key(storage, text, now)
    every = await storage.nodes.list(include_revoked=narrowing.node_id is not None)
    nodes = {each.id: each for each in every if narrowing.node_id in (None, each.id)}
    owners = await place.organisation_names()
    verdicts = explain(
        key.policy,
        [each.facts(authority) for each in nodes.values()],
        await storage.regions.tree(),
        narrowing,
        model=model,
    )
    refusal = key_refusal(key, model, now)
    return _Explained(key, owners[key.organisation_id], refusal, verdicts, nodes, owners)


def _show(found: _Explained, model: str, *, unknown: bool) -> None:
    key = found.key
    say.print(f"{key.name} ({key.id}) of {found.organisation}, asking for {model}", markup=False)
    if unknown:
        say.print(f"warning: the catalog has no model {model!r}; a node may offer it", markup=False)
    if found.key_refusal is not None:
        say.print(f"Refused before any node is looked at. {found.key_refusal}", markup=False)
    rows = [_row(found, verdict) for verdict in found.verdicts]
    columns = ("node", "name", "organisation", "decided", "because")
    show_table(columns, rows, empty="There is no such node: run `porten login` on a machine.")
    say.print(_JUDGED)


def _row(found: _Explained, verdict: Verdict) -> tuple[str, ...]:
    node = found.nodes[verdict.facts.node_id]
    because = "" if verdict.serves else verdict.words
    decided = "permitted" if verdict.reason is None else verdict.reason.value
    return (node.id, node.name, found.owners[node.organisation_id], decided, because)


def _document(found: _Explained, model: str, narrowing: Narrowing) -> dict[str, Any]:
    key = found.key
    return {
        "key": {"id": key.id, "name": key.name, "organisation": found.organisation},
        "model": model,
        "region": narrowing.region,
        "node": narrowing.node_id,
        "key_refuses": found.key_refusal,
        "judged": "policy",
        "nodes": [_node_document(found, verdict) for verdict in found.verdicts],
    }


def _node_document(found: _Explained, verdict: Verdict) -> dict[str, Any]:
    node = found.nodes[verdict.facts.node_id]
    return {
        "id": node.id,
        "name": node.name,
        "organisation": found.owners[node.organisation_id],
        "permitted": verdict.permitted,
        "gate": None if verdict.reason is None else verdict.reason.value,
        "because": verdict.words,
    }
