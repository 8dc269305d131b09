"""``porten-hub erase``: what tells who somebody is goes for good.

Owns its words and options; see :mod:`hub.cli`. What goes with what is :mod:`hub.storage.erasure`'s.
"""

from __future__ import annotations

from typing import Annotated

import typer

from hub.errors import InvalidInput, NotFound
from hub.operations import Workplace, read_id
from hub.terminal import explained, is_interactive, say, work

erase_app = typer.Typer(
    help="Erase people, machines and organisations for good; see docs/data-protection.md.",
    no_args_is_help=True,
)

YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask: it cannot be undone.")]


@erase_app.command("account")
def erase_account(
    context: typer.Context,
    email: Annotated[str, typer.Argument(help="E-mail address of the account.")],
    *,
    yes: YesOption = False,
) -> None:
    """Erase a person: the account, its sessions, and from the audit log the addresses it was seen at."""
    _sure(f"the account {email}", yes=yes)

    async def job(place: Workplace) -> None:
        account = await place.storage.accounts.by_email(email)
        if account is not None:
            await place.storage.erasure.account(account)
        elif not await place.storage.erasure.removed(email):
            raise NotFound("account", email)
        await place.storage.erasure.purge()

    work(context, job)
    say.print(f"{email} is erased.", markup=False)


@erase_app.command("node")
def erase_node(
    context: typer.Context,
    node_id: Annotated[str, typer.Argument(help="Its id, node_…")],
    *,
    yes: YesOption = False,
) -> None:
    """Erase a machine: its name and what it said of itself. One that still serves ends with it."""
    with explained():
        read_id(node_id, "node", "node")
    _sure(f"the node {node_id}", yes=yes)

    async def job(place: Workplace) -> None:
        node = await place.storage.nodes.get(node_id)
        if node is None:
            raise NotFound("node", node_id)
        await place.storage.erasure.node(node)
        await place.storage.erasure.purge()

    work(context, job)
    say.print(f"{node_id} is erased.", markup=False)


@erase_app.command("organisation")
def erase_organisation(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Its name or id.")],
    *,
    yes: YesOption = False,
) -> None:
    """Erase an organisation: its people, machines, keys, tokens and usage. A running Hub obeys at once."""
    _sure(f"the organisation {name} with everything that is its own", yes=yes)

    async def job(place: Workplace) -> dict[str, int]:
        gone = await place.storage.erasure.organisation(await place.organisation(name))
        await place.storage.erasure.purge()
        return gone

    gone = work(context, job)
    told = ", ".join(f"{count} {table.replace('_', ' ')}" for table, count in sorted(gone.items()) if count)
    say.print(f"{name} is erased{f': {told}' if told else ''}.", markup=False)


@erase_app.command("address")
def erase_address(
    context: typer.Context,
    address: Annotated[str, typer.Argument(help="As the audit log shows it; of IPv6, the network.")],
    *,
    yes: YesOption = False,
) -> None:
    """Make the audit log forget a network address; the events keep a pseudonym that stands for nothing."""
    _sure(f"the address {address}", yes=yes)

    async def job(place: Workplace) -> None:
        if not await place.storage.erasure.address(address):
            raise NotFound("address", address)
        await place.storage.erasure.purge()

    work(context, job)
    say.print(f"{address} is erased.", markup=False)


def _sure(what: str, *, yes: bool) -> None:
    with explained():
        if not yes and not is_interactive():
            raise InvalidInput("yes", f"erasing {what} cannot be undone: say --yes")
    if not yes:
        typer.confirm(f"Erase {what}? It cannot be undone", abort=True, err=True)
