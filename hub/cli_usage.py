"""``porten-hub usage``.

Owns its words and options; see :mod:`hub.cli`. What a report holds is :mod:`hub.usage_report`'s.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer

from hub.cli_access import OrganisationOption
from hub.operations import Workplace, read_id
from hub.storage.records import UsageSum
from hub.storage.rollups import By, Step
from hub.terminal import explained, show_table, work
from hub.usage_report import columns, csv_text, read_report, rows


def usage(
    context: typer.Context,
    *,
    organisation: OrganisationOption = None,
    key: Annotated[str | None, typer.Option(help="Only of this key, by its id.")] = None,
    first: Annotated[
        str | None, typer.Option("--from", help="The first UTC day, 2026-01-01.", show_default="30 days")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", help="The last UTC day, included.", show_default="today")
    ] = None,
    by: Annotated[
        str, typer.Option(help="One sum for each of these.", metavar="|".join((*Step, "total")))
    ] = Step.DAY.value,
    group_by: Annotated[
        str,
        typer.Option(help=f"Tell apart by any of {', '.join(By)}, comma-separated."),
    ] = By.MODEL.value,
    as_csv: Annotated[bool, typer.Option("--csv", help="As CSV, for spreadsheets and scripts.")] = False,
) -> None:
    """Show what an organisation's keys used: requests and tokens, by time and by what you name.

    A request counts once it has reached a node, a second or two after its end. Nothing of what was asked or
    answered is kept.

    [bold]Examples[/bold]

    porten-hub usage --group-by key

    porten-hub usage --organisation Lab --group-by key,model --csv

    porten-hub usage --from 2026-01-01 --to 2026-01-31 --by total

    porten-hub usage --by hour --group-by node,region
    """
    with explained():
        if key is not None:
            read_id(key, "key", "key")
        report = read_report(first, last, by, group_by, today=datetime.fromtimestamp(time.time(), UTC).date())

    async def job(place: Workplace) -> tuple[list[UsageSum], dict[str, str]]:
        owner = await place.organisation(organisation)
        sums = await place.storage.usage.sums(
            owner.id, since=report.since, until=report.until, step=report.step, by=report.by, key_id=key
        )
        return sums, await _names(place, owner.id, report.by)

    sums, names = work(context, job)
    headings, found = columns(report), rows(report, sums, names)
    if as_csv:
        typer.echo(csv_text(headings, found), nl=False)
    else:
        show_table(headings, found, empty="Nothing was used in these days.")


async def _names(place: Workplace, organisation_id: str, by: Sequence[By]) -> dict[str, str]:
    names: dict[str, str] = {}
    if By.KEY in by:
        names |= {each.id: each.name for each in await place.storage.keys.list(organisation_id)}
    if By.NODE in by:
        names |= await place.storage.nodes.names()
    return names
