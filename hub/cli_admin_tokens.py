"""``porten-hub admin-tokens``.

Owns its words and options; see :mod:`hub.cli`. What a token may be is :mod:`hub.admin_tokens`'s.
"""

from __future__ import annotations

import time
from typing import Annotated

import typer

from hub.admin_tokens import IssuedAdminToken
from hub.cli_access import OrganisationOption
from hub.operations import Workplace, read_duration, read_id, read_role
from hub.storage.records import AdminToken, Role
from hub.terminal import day, explained, out, say, show_table, work

admin_tokens_app = typer.Typer(
    help="Leave for programs to administer, through /admin/v1.", no_args_is_help=True
)


@admin_tokens_app.command("create")
def create_admin_token(
    context: typer.Context,
    *,
    name: Annotated[str, typer.Option(help="What you will call it.")],
    role: Annotated[
        str, typer.Option(help=f"What it may do: {', '.join(Role)}.", metavar="ROLE")
    ] = Role.MEMBER.value,
    expires: Annotated[str, typer.Option(help="After how long it ends: 30m, 12h, at most 366d.")] = "90d",
    organisation: OrganisationOption = None,
) -> None:
    """Make an admin token. Its secret goes to standard output and is shown only now.

    It acts for its organisation with a role's rights: member and auditor look, admin and owner change things,
    operator acts for the whole Hub.

    [bold]Examples[/bold]

    porten-hub admin-tokens create --name terraform --role admin

    porten-hub admin-tokens create --name siem --role auditor --expires 366d
    """
    with explained():
        may, lifetime = read_role(role), read_duration(expires)

    async def job(place: Workplace) -> IssuedAdminToken:
        owner = await place.organisation(organisation)
        return await place.admin_tokens.issue(None, owner.id, name=name, role=may, lifetime_s=lifetime)

    issued = work(context, job)
    say.print(f"Made {issued.token.id}. Its secret is shown only now:", markup=False)
    out.print(issued.secret, markup=False)


@admin_tokens_app.command("list")
def list_admin_tokens(context: typer.Context, *, organisation: OrganisationOption = None) -> None:
    """List the admin tokens of an organisation."""

    async def job(place: Workplace) -> list[AdminToken]:
        return await place.storage.admin_tokens.list((await place.organisation(organisation)).id)

    now = time.time()
    rows = [_row(token, now) for token in work(context, job)]
    show_table(
        ("id", "name", "token", "role", "ends", "state", "last used"),
        rows,
        empty="There are no admin tokens: porten-hub admin-tokens create --name ci --role admin",
    )


@admin_tokens_app.command("revoke")
def revoke_admin_token(
    context: typer.Context, token_id: Annotated[str, typer.Argument(help="Its id, atk_…")]
) -> None:
    """End an admin token, at once. What was made with it stays."""
    with explained():
        read_id(token_id, "atk", "token")
    work(context, lambda place: place.storage.admin_tokens.revoke(token_id, now=place.clock()))
    say.print(f"{token_id} is revoked.", markup=False)


def _row(token: AdminToken, now: float) -> tuple[str, ...]:
    state = "active" if token.is_active(now) else "revoked" if token.revoked_at is not None else "expired"
    ends, used = day(token.expires_at), day(token.last_used_at)
    return (token.id, token.name, f"{token.prefix}…", token.role.value, ends, state, used)
