"""``porten-hub accounts | organisations``.

Owns their words and options; see :mod:`hub.cli`.
"""

from __future__ import annotations

from typing import Annotated

import typer

from hub.accounts import checked_email
from hub.cli_access import OrganisationOption
from hub.errors import AlreadyExists, NotFound
from hub.identifiers import checked_name
from hub.operations import Workplace, read_limits, read_role
from hub.quotas import UNLIMITED, Allowance
from hub.storage.records import Account, Organisation, Role
from hub.terminal import (
    ConcurrentRequests,
    MonthlyTokens,
    RequestsPerMinute,
    TokensPerMinute,
    ask_password,
    day,
    explained,
    limits_words,
    out,
    say,
    show_table,
    work,
)

accounts_app = typer.Typer(help="People who may sign in to the portal.", no_args_is_help=True)
organisations_app = typer.Typer(help="Those who own nodes and keys.", no_args_is_help=True)


@accounts_app.command("list")
def list_accounts(context: typer.Context) -> None:
    """List everybody's account."""
    names, accounts = work(context, _everybody)
    rows = [(account.email, account.role.value, names[account.organisation_id]) for account in accounts]
    show_table(("e-mail", "role", "organisation"), rows, empty="There are no accounts.")


@accounts_app.command("create")
def create_account(
    context: typer.Context,
    *,
    email: Annotated[str, typer.Argument(help="E-mail address to sign in with.")],
    role: Annotated[
        str, typer.Option(help=f"What they may do: {', '.join(Role)}.", metavar="ROLE")
    ] = Role.MEMBER.value,
    password_file: Annotated[
        str | None, typer.Option(help="File with the password, '-' for standard input.")
    ] = None,
    organisation: OrganisationOption = None,
) -> None:
    """Make an account.

    [bold]Example[/bold]

    porten-hub accounts create ada@example.org --role owner --organisation Lab
    """
    with explained():
        address, may = checked_email(email), read_role(role)

    async def job(place: Workplace) -> Account:
        owner = await place.organisation(organisation)
        if await place.storage.accounts.by_email(address) is not None:
            raise AlreadyExists("account", address)
        password = ask_password(password_file)
        return await place.accounts.create(owner.id, email=address, password=password, role=may)

    say.print(f"{work(context, job).email} may sign in now.", markup=False)


@accounts_app.command("password")
def change_password(
    context: typer.Context,
    *,
    email: Annotated[str, typer.Argument(help="Whose password.")],
    password_file: Annotated[
        str | None, typer.Option(help="File with the password, '-' for standard input.")
    ] = None,
) -> None:
    """Set a new password and sign that account out everywhere."""

    async def job(place: Workplace) -> None:
        account = await _account(place, email)
        await place.accounts.change_password(account.id, ask_password(password_file))

    work(context, job)
    say.print(f"{email} has a new password.", markup=False)


@accounts_app.command("role")
def change_role(
    context: typer.Context,
    *,
    email: Annotated[str, typer.Argument(help="Whose role.")],
    role: Annotated[str, typer.Option(help=f"What they may do: {', '.join(Role)}.", metavar="ROLE")],
) -> None:
    """Give an account another role; its open sessions have it from the next page on.

    Operators are made and unmade here alone. The last owner of an organisation and the last operator stay.

    [bold]Example[/bold]

    porten-hub accounts role ada@example.org --role owner
    """
    with explained():
        to = read_role(role)

    async def job(place: Workplace) -> None:
        account = await _account(place, email)
        await place.storage.members.change_role(account.id, to, by=None)

    work(context, job)
    say.print(f"{email} is {to} now.", markup=False)


@accounts_app.command("reset-second-step")
def reset_second_step(
    context: typer.Context, email: Annotated[str, typer.Argument(help="Whose second step.")]
) -> None:
    """Switch off the second step of somebody who lost phone and recovery codes, and sign them out everywhere.

    Make sure that it is really them who asks: from then on the password alone signs in.
    """

    async def job(place: Workplace) -> bool:
        account = await _account(place, email)
        return await place.storage.members.reset_second_step(account.id, by=None)

    was_on = work(context, job)
    say.print(
        f"{email} signs in with the password alone now." if was_on else f"{email} has no second step.",
        markup=False,
    )


@organisations_app.command("list")
def list_organisations(context: typer.Context) -> None:
    """List the organisations."""
    organisations = work(context, lambda place: place.storage.organisations.list())
    rows = [(each.id, each.name, day(each.created_at), limits_words(each.limits)) for each in organisations]
    show_table(("id", "name", "since", "limits"), rows, empty="There are no organisations.")


@organisations_app.command("create")
def create_organisation(
    context: typer.Context, name: Annotated[str, typer.Argument(help="Its name.")]
) -> None:
    """Make an organisation; its nodes and keys are apart from every other's."""
    with explained():
        checked = checked_name(name)
    made = work(context, lambda place: place.storage.organisations.create(checked, now=place.clock()))
    say.print("Made the organisation:")
    out.print(made.id, markup=False)


@organisations_app.command("limit")
def limit_organisation(
    context: typer.Context,
    organisation: Annotated[str, typer.Argument(help="Its name or id.")],
    *,
    requests_per_minute: RequestsPerMinute = None,
    tokens_per_minute: TokensPerMinute = None,
    concurrent_requests: ConcurrentRequests = None,
    monthly_tokens: MonthlyTokens = None,
) -> None:
    """Set what all keys of an organisation may use together. What is not named stays as it is.

    A running Hub obeys within a second. Each key may have limits of its own: porten-hub keys set.

    [bold]Examples[/bold]

    porten-hub organisations limit Lab --tokens-per-minute 200k

    porten-hub organisations limit Lab --monthly-tokens none
    """
    named = {
        "requests_per_minute": requests_per_minute,
        "tokens_per_minute": tokens_per_minute,
        "concurrent_requests": concurrent_requests,
        "monthly_tokens": monthly_tokens,
    }
    with explained():
        read_limits(UNLIMITED, **named)

    async def job(place: Workplace) -> tuple[Organisation, Allowance]:
        found = await place.organisation(organisation)
        limits = read_limits(found.limits, **named)
        await place.storage.organisations.set_limits(found.id, limits)
        return found, limits

    found, limits = work(context, job)
    say.print(f"{found.name}: {limits_words(limits)}.", markup=False)


async def _account(place: Workplace, email: str) -> Account:
    account = await place.storage.accounts.by_email(email)
    if account is None:
        raise NotFound("account", email)
    return account


async def _everybody(place: Workplace) -> tuple[dict[str, str], list[Account]]:
    return await place.organisation_names(), await place.storage.accounts.list()
