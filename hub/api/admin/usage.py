"""`/admin/v1/usage` and `/usage.csv`: what was used, over time and by key, model, region, outcome or node.

Owns which questions are answered: those that the sums kept for it answer quickly, so that nobody's question
keeps the database from others. How usage is reported is `hub.usage_report`'s.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Depends, Query, Response

from hub.api.admin.callers import TheHub, Whose
from hub.api.admin.route import admin_router
from hub.api.admin.wire import Told, Wire, told
from hub.composition import Hub
from hub.errors import InvalidInput
from hub.storage.records import UsageSum
from hub.storage.rollups import By
from hub.usage_report import Report, columns, csv_text, read_report, rows

MOST_LINES = 20_000
"""Sums of one answer."""

router = admin_router()

Day = Annotated[str, Query(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", examples=["2026-01-31"])]


class Sum(Wire):
    """Usage of one group in one span of time; `start` is null where all of the time is one span."""

    start: Told | None
    group: dict[str, str]
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int


class UsageAnswer(Wire):
    """Sums, by time and then by group; `names` are what the ids of keys and nodes of your own stand for."""

    since: Told
    until: Told
    data: list[Sum]
    names: dict[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """A question with its answer."""

    report: Report
    sums: list[UsageSum]
    names: Mapping[str, str]


async def _find(
    hub: TheHub,
    organisation: Whose,
    *,
    first: Annotated[
        Day | None, Query(alias="from", description="The first UTC day; 30 days where unset.")
    ] = None,
    last: Annotated[
        Day | None, Query(alias="to", description="The last UTC day, included; today where unset.")
    ] = None,
    step: Annotated[Literal["hour", "day", "total"], Query(description="One sum for each of these.")] = "day",
    by: Annotated[
        list[By] | None,
        Query(
            max_length=2, description="What is told apart: one thing, or `key` and one that is not `node`."
        ),
    ] = None,
    key: Annotated[str | None, Query(pattern="^key_[a-z2-7]{20}$", description="Only of this key.")] = None,
) -> Found:
    today = datetime.fromtimestamp(hub.clock(), UTC).date()
    report = read_report(first, last, step, ",".join(by or [By.MODEL]), today=today)
    _check_quick(report.by, key)
    sums = await hub.storage.usage.sums(
        organisation.id,
        since=report.since,
        until=report.until,
        step=report.step,
        by=report.by,
        key_id=key,
        most=MOST_LINES + 1,
    )
    if len(sums) > MOST_LINES:
        raise InvalidInput("from", f"that is more than {MOST_LINES:,} sums: ask for less time or one key")
    return Found(report, sums, await _names(hub, organisation.id, report.by))


Answer = Annotated[Found, Depends(_find)]


@router.get("/usage")
async def get_usage(found: Answer) -> UsageAnswer:
    """Sum an organisation's usage. A request counts once it has reached a node, a second or two later."""
    names = {value: found.names[value] for each in found.sums for value in each.group if value in found.names}
    return UsageAnswer(
        since=told(found.report.since),
        until=told(found.report.until),
        data=[_shown(found.report, each) for each in found.sums],
        names=names,
    )


@router.get("/usage.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
async def get_usage_csv(found: Answer) -> Response:
    """Give the same as CSV, for spreadsheets."""
    text = await asyncio.to_thread(
        lambda: csv_text(columns(found.report), rows(found.report, found.sums, found.names))
    )
    return Response(text, media_type="text/csv")


def _check_quick(by: tuple[By, ...], key: str | None) -> None:
    if len(by) == 2 and (By.KEY not in by or By.NODE in by):
        raise InvalidInput("by", "two things are told apart where one is key and the other is not node")
    if key is not None and By.NODE in by:
        raise InvalidInput("by", "sums by node do not know keys")


async def _names(hub: Hub, organisation_id: str, by: tuple[By, ...]) -> Mapping[str, str]:
    """What ids stand for. Of nodes only one's own have names: what others call theirs is not told."""
    names: dict[str, str] = {}
    if By.KEY in by:
        names |= {key.id: key.name for key in await hub.storage.keys.list(organisation_id)}
    if By.NODE in by:
        names |= await hub.storage.nodes.names(organisation_id, include_revoked=True)
    return names


def _shown(report: Report, found: UsageSum) -> Sum:
    return Sum(
        start=None if found.start is None else told(found.start),
        group=dict(zip((by.value for by in report.by), found.group, strict=True)),
        requests=found.requests,
        prompt_tokens=found.prompt_tokens,
        cached_tokens=found.cached_tokens,
        completion_tokens=found.completion_tokens,
    )
