"""``porten-hub keys | nodes | regions | join-token``.

Owns their words and options; see :mod:`hub.cli`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated

import typer

from hub.addresses import outside
from hub.keys import IssuedKey, issue_key
from hub.operations import (
    Workplace,
    absent_models,
    add_region,
    read_duration,
    read_fleet,
    read_id,
    read_trust,
)
from hub.policy import Fleet, Sharing
from hub.storage.records import ApiKey, JoinToken, Node, Region
from hub.terminal import config_of, day, explained, out, say, show_table, work

keys_app = typer.Typer(help="API keys and the policies they carry.", no_args_is_help=True)
nodes_app = typer.Typer(help="The machines that serve.", no_args_is_help=True)
regions_app = typer.Typer(help="The tree of regions.", no_args_is_help=True)
join_tokens_app = typer.Typer(help="Leave for machines to enroll without a person.", no_args_is_help=True)

OrganisationOption = Annotated[
    str | None, typer.Option("--organisation", help="Name or id; the operator's own where unset.")
]


@keys_app.command("create")
def create_key(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="What you will call it.")],
    fleet: Annotated[
        str, typer.Option(help="Whose nodes it may use.", metavar="|".join(Fleet))
    ] = Fleet.OWN.value,
    region: Annotated[
        list[str] | None, typer.Option(help="A region it may use; none means anywhere. Repeatable.")
    ] = None,
    trust: Annotated[str, typer.Option(help="The least trust class of a node.")] = "community",
    model: Annotated[
        list[str] | None, typer.Option(help="A model it may use; none means all. Repeatable.")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After how long it ends: 90d, 12h, 30m.")] = None,
    organisation: OrganisationOption = None,
) -> None:
    """Make an API key. Its secret goes to standard output and is shown only now.

    [bold]Examples[/bold]

    porten-hub keys create --name my-app

    porten-hub keys create --name eu --region eu --trust verified --expires 90d
    """
    with explained():
        whose, minimum_trust = read_fleet(fleet), read_trust(trust)
        lifetime = None if expires is None else read_duration(expires)

    async def job(place: Workplace) -> IssuedKey:
        now = place.clock()
        owner = await place.organisation(organisation)
        return await issue_key(
            place.storage,
            owner.id,
            name=name,
            now=now,
            fleet=whose,
            regions=region or (),
            minimum_trust=minimum_trust,
            models=model or None,
            expires_at=None if lifetime is None else now + lifetime,
        )

    _warn_of_absent(context, model or ())
    issued = work(context, job)
    say.print(f"Made {issued.key.id}. Its secret is shown only now:", markup=False)
    out.print(issued.secret, markup=False)


@keys_app.command("list")
def list_keys(context: typer.Context, *, organisation: OrganisationOption = None) -> None:
    """List the keys of an organisation."""

    async def job(place: Workplace) -> list[ApiKey]:
        return await place.storage.keys.list((await place.organisation(organisation)).id)

    rows = [_key_row(key) for key in work(context, job)]
    columns = ("id", "name", "key", "fleet", "regions", "trust", "models", "ends", "state", "last used")
    show_table(columns, rows, empty="There are no keys: porten-hub keys create --name my-app")


@keys_app.command("revoke")
def revoke_key(context: typer.Context, key_id: Annotated[str, typer.Argument(help="Its id, key_…")]) -> None:
    """End a key. A running Hub refuses it within a second."""
    with explained():
        read_id(key_id, "key", "key")
    work(context, lambda place: place.storage.keys.revoke(key_id, now=place.clock()))
    say.print(f"{key_id} is revoked.", markup=False)


@nodes_app.command("list")
def list_nodes(
    context: typer.Context,
    *,
    organisation: OrganisationOption = None,
    every: Annotated[bool, typer.Option("--all", help="The nodes of every organisation.")] = False,
) -> None:
    """List the nodes of an organisation."""

    async def job(place: Workplace) -> tuple[dict[str, str], list[Node]]:
        owner = None if every else (await place.organisation(organisation)).id
        return await place.organisation_names(), await place.storage.nodes.list(owner)

    names, nodes = work(context, job)
    rows = [(*_node_row(node), *([names[node.organisation_id]] if every else [])) for node in nodes]
    columns = ("id", "name", "region", "trust", "sharing", "last seen", *(["organisation"] if every else []))
    show_table(columns, rows, empty="There are no nodes: run `porten login` on a machine.")


@nodes_app.command("revoke")
def revoke_node(
    context: typer.Context, node_id: Annotated[str, typer.Argument(help="Its id, node_…")]
) -> None:
    """End a node. A running Hub cuts its connection within a second."""
    with explained():
        read_id(node_id, "node", "node")
    work(context, lambda place: place.enrollment.revoke(node_id))
    say.print(f"{node_id} is revoked.", markup=False)


@regions_app.command("list")
def list_regions(context: typer.Context) -> None:
    """Show the tree of regions."""
    regions = work(context, lambda place: place.storage.regions.list())
    show_table(("code", "name", "in"), _tree_rows(regions), empty="There are no regions.")


@regions_app.command("add")
def add(
    context: typer.Context,
    code: Annotated[str, typer.Argument(help="Its code, such as eu-de-ber.")],
    parent: Annotated[str | None, typer.Option(help="The region it lies in; a root where unset.")] = None,
    name: Annotated[str | None, typer.Option(help="What people call it; its code where unset.")] = None,
) -> None:
    """Add a region. Regions are never removed: keys and credentials name them.

    [bold]Example[/bold]

    porten-hub regions add eu-de-ber --parent eu-de --name Berlin
    """
    work(context, lambda place: add_region(place.storage, Region(code, parent, name or code)))
    say.print(f"Added the region {code}{f', in {parent}' if parent else ''}.", markup=False)


@join_tokens_app.command("create")
def create_join_token(
    context: typer.Context,
    *,
    region: Annotated[str | None, typer.Option(help="Where the machines stand.")] = None,
    uses: Annotated[int, typer.Option(help="How many machines may use it.")] = 1,
    expires: Annotated[str, typer.Option(help="After how long it ends: 7d, 12h, 30m.")] = "24h",
    name: Annotated[str, typer.Option(help="What you will call it.")] = "join token",
    organisation: OrganisationOption = None,
) -> None:
    """Make a token with which machines enroll by themselves; for PORTEN_JOIN_TOKEN.

    The operator makes it, so its region counts without further confirmation.

    [bold]Example[/bold]

    porten-hub join-token create --region eu-de-fra --uses 20 --expires 7d
    """
    with explained():
        lifetime = read_duration(expires)

    async def job(place: Workplace) -> str:
        made = await place.enrollment.create_join_token(
            (await place.organisation(organisation)).id,
            region=region,
            uses=uses,
            expires_in_s=lifetime,
            name=name,
            region_confirmed=True,
        )
        return made.secret

    secret = work(context, job)
    say.print("The token is shown only now:")
    out.print(secret, markup=False)
    config = config_of(context)
    url = config.public_url or f"http://{outside(config.host, config.port)}"
    say.print("On each machine, with that token:")
    say.print(f"  PORTEN_HUB_URL={url} PORTEN_JOIN_TOKEN=… porten run", markup=False)


@join_tokens_app.command("list")
def list_join_tokens(context: typer.Context, *, organisation: OrganisationOption = None) -> None:
    """List the join tokens of an organisation."""

    async def job(place: Workplace) -> list[JoinToken]:
        return await place.storage.join_tokens.list((await place.organisation(organisation)).id)

    now = time.time()
    rows = [_token_row(token, now) for token in work(context, job)]
    show_table(("id", "name", "region", "used", "ends", "state"), rows, empty="There are no join tokens.")


@join_tokens_app.command("revoke")
def revoke_join_token(
    context: typer.Context, token_id: Annotated[str, typer.Argument(help="Its id, jt_…")]
) -> None:
    """End a join token; the nodes it admitted stay."""
    with explained():
        read_id(token_id, "jt", "token")
    work(context, lambda place: place.storage.join_tokens.revoke(token_id, now=place.clock()))
    say.print(f"{token_id} is revoked.", markup=False)


def _key_row(key: ApiKey) -> tuple[str, ...]:
    now = time.time()
    state = "active" if key.is_active(now) else "revoked" if key.revoked_at is not None else "expired"
    regions = ", ".join(sorted(key.regions)) or "anywhere"
    models = "all" if key.models is None else ", ".join(sorted(key.models)) or "none"
    return (
        *(key.id, key.name, f"{key.prefix}…", key.fleet, regions, key.minimum_trust, models),
        *(day(key.expires_at), state, day(key.last_used_at)),
    )


def _warn_of_absent(context: typer.Context, models: Sequence[str]) -> None:
    with explained():
        absent = absent_models(config_of(context), models)
    for model in absent:
        say.print(
            f"warning: the catalog has no model {model!r}: the key may use it where a node offers one of "
            "that name",
            markup=False,
        )


def _node_row(node: Node) -> tuple[str, ...]:
    region = node.region or "-"
    if node.region is not None and not node.region_confirmed:
        region += " (unconfirmed)"
    trust = "(unreadable)" if node.trust is None else node.trust.label
    return (node.id, node.name, region, trust, _sharing_words(node.sharing), day(node.last_seen_at))


def _sharing_words(sharing: Sharing | None) -> str:
    if sharing is None:
        return "(unreadable)"
    return ", ".join([sharing.kind.value, *sorted(sharing.organisations)])


def _token_row(token: JoinToken, now: float) -> tuple[str, ...]:
    used = f"{token.uses} of {token.max_uses}"
    return (token.id, token.name, token.region or "-", used, day(token.expires_at), _token_state(token, now))


def _token_state(token: JoinToken, now: float) -> str:
    if token.is_active(now):
        return "active"
    if token.revoked_at is not None:
        return "revoked"
    return "used up" if token.uses >= token.max_uses else "expired"


def _tree_rows(regions: list[Region], parent: str | None = None, depth: int = 0) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for region in regions:
        if region.parent == parent:
            rows.append(("  " * depth + region.code, region.name, region.parent or ""))
            rows += _tree_rows(regions, region.code, depth + 1)
    return rows
