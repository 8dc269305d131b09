"""``porten-hub nodes | regions | join-token``.

Owns their words and options; see :mod:`hub.cli`.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hub.addresses import outside
from hub.operations import Workplace, add_region, read_duration, read_id
from hub.policy import Sharing
from hub.storage.records import JoinToken, Node, Region
from hub.terminal import config_of, day, explained, out, say, show_table, work

nodes_app = typer.Typer(help="The machines that serve.", no_args_is_help=True)
regions_app = typer.Typer(help="The tree of regions.", no_args_is_help=True)
join_tokens_app = typer.Typer(help="Leave for machines to enroll without a person.", no_args_is_help=True)

OrganisationOption = Annotated[
    str | None, typer.Option("--organisation", help="Name or id; the operator's own where unset.")
]


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
    columns = ("id", "name", "region", "trust", "sharing", "last seen", "on drain")
    show_table(
        (*columns, *(["organisation"] if every else [])),
        rows,
        empty="There are no nodes: run `porten login` on a machine.",
    )


NodeArgument = Annotated[str, typer.Argument(help="Its id, node_…")]


@nodes_app.command("drain")
def drain_node(context: typer.Context, node_id: NodeArgument) -> None:
    """Give a node no new work, before its machine is restarted or moved.

    A running Hub obeys within a second. What the node is answering goes on to its end: its page in the portal
    says how much that is.

    [bold]Example[/bold]

    porten-hub nodes drain node_…
    """
    with explained():
        read_id(node_id, "node", "node")
    work(context, lambda place: place.enrollment.drain(node_id))
    say.print(f"{node_id} is on drain. It gets work again after:", markup=False)
    say.print(f"  porten-hub nodes resume {node_id}", markup=False)


@nodes_app.command("resume")
def resume_node(context: typer.Context, node_id: NodeArgument) -> None:
    """Let a node that is on drain have work again."""
    with explained():
        read_id(node_id, "node", "node")
    work(context, lambda place: place.enrollment.resume(node_id))
    say.print(f"{node_id} is not on drain: it gets work while it is connected.", markup=False)


@nodes_app.command("revoke")
def revoke_node(context: typer.Context, node_id: NodeArgument) -> None:
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
    """Add a region. The portal renames, moves and removes them: it says first what that means for keys.

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


def _node_row(node: Node) -> tuple[str, ...]:
    region = node.region or "-"
    if node.region is not None and not node.region_confirmed:
        region += " (unconfirmed)"
    trust = "(unreadable)" if node.trust is None else node.trust.label
    drain = "" if node.draining_since is None else f"since {day(node.draining_since)}"
    return (node.id, node.name, region, trust, _sharing_words(node.sharing), day(node.last_seen_at), drain)


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
