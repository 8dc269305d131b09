"""`/usage`: what was used, over time and by key, model, region or node; `/usage.csv`: the same to take away.

Owns which question a page's address asks. How sums are drawn is `hub.portal.charts`'s, how they are recorded
`hub.metering`'s.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response

from hub.portal.charts import (
    SPANS,
    BudgetView,
    Span,
    bars,
    budget_view,
    next_month_text,
    shares,
    sums,
)
from hub.portal.errors import TooMuch
from hub.portal.pages import PortalRoute, hub_of, page
from hub.portal.sessions import SignedIn, Visitor
from hub.storage.records import ApiKey, UsageSum
from hub.storage.rollups import By
from hub.usage_report import Report, columns, csv_text, rows

BREAKDOWNS = {By.KEY: "Key", By.MODEL: "Model", By.REGION: "Region", By.NODE: "Node"}
MOST_GROUPS = 50
"""Groups that a page shows; the download has all of them."""
MOST_LINES = 20_000
"""Lines of a download; the command line has no such bound."""

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Question:
    """What an address asks for; anything it does not say, or says wrongly, is as at first sight."""

    span: Span
    by: By
    key: ApiKey | None
    starts: list[int]

    @property
    def since(self) -> int:
        """UTC seconds since the epoch at which it begins."""
        return self.starts[0]

    @property
    def until(self) -> int:
        """UTC seconds since the epoch at which it ends: with the present step."""
        return self.starts[-1] + self.span.step.width_s

    def address(self, path: str = "/usage", **changes: str) -> str:
        """The address that asks this, with something changed."""
        said = {"span": self.span.name, "by": self.by.value} | ({"key": self.key.id} if self.key else {})
        return f"{path}?" + "&".join(f"{name}={value}" for name, value in (said | changes).items() if value)


@router.get("/usage")
async def usage(request: Request, visitor: SignedIn) -> Response:
    """Show usage over time, and who or what it goes to."""
    hub, organisation = hub_of(request), visitor.organisation.id
    keys = await hub.storage.keys.list(organisation)
    asked = _question(request, keys)
    over_time = await _sums(request, visitor, asked, over_time=True)
    names = await _names(request, visitor, asked, keys)
    groups = shares(await _sums(request, visitor, asked, over_time=False), names)
    drawn = bars(over_time, asked.starts, asked.span.step)
    return page(
        "usage.html",
        visitor=visitor,
        here="/usage",
        asked=asked,
        spans=SPANS,
        breakdowns=[(by, words) for by, words in BREAKDOWNS.items() if by is not By.NODE or not asked.key],
        group_words=BREAKDOWNS[asked.by],
        keys=keys,
        total=sums(over_time),
        unanswered=sum(each.requests for each in over_time if each.group[0] != "ok"),
        bars=drawn,
        most=max(bar.sums.tokens for bar in drawn),
        groups=groups[:MOST_GROUPS],
        has_more=len(groups) > MOST_GROUPS,
        budgets=_budgets(request, visitor, keys),
        next_month=next_month_text(hub.clock()),
    )


@router.get("/usage.csv")
async def download(request: Request, visitor: SignedIn) -> Response:
    """Return what the page shows, with every group in every step of time; nodes, who are many, at once."""
    keys = await hub_of(request).storage.keys.list(visitor.organisation.id)
    asked = _question(request, keys)
    names = await _names(request, visitor, asked, keys)
    step = None if asked.by is By.NODE else asked.span.step
    report = Report(asked.since, asked.until, step, (asked.by,))
    found = await hub_of(request).storage.usage.sums(
        visitor.organisation.id,
        since=report.since,
        until=report.until,
        step=report.step,
        by=report.by,
        key_id=asked.key.id if asked.key else None,
        most=MOST_LINES + 1,
    )
    if len(found) > MOST_LINES:
        raise TooMuch(
            f"That would be more than {MOST_LINES:,} lines. Choose a shorter time or one key, or have an "
            "operator run porten-hub usage."
        )
    return Response(
        await asyncio.to_thread(lambda: csv_text(columns(report), rows(report, found, names))),
        media_type="text/csv",
        headers={"content-disposition": 'attachment; filename="porten-usage.csv"'},
    )


def _question(request: Request, keys: list[ApiKey]) -> Question:
    said = request.query_params
    span = next((span for span in SPANS if span.name == said.get("span")), SPANS[2])
    key = next((key for key in keys if key.id == said.get("key")), None)
    by = next((by for by in BREAKDOWNS if by == said.get("by")), By.MODEL if key else By.KEY)
    by = By.MODEL if key and by is By.NODE else by  # sums by node do not know keys
    return Question(span, by, key, span.starts(hub_of(request).clock()))


async def _sums(request: Request, visitor: Visitor, asked: Question, *, over_time: bool) -> list[UsageSum]:
    return await hub_of(request).storage.usage.sums(
        visitor.organisation.id,
        since=asked.since,
        until=asked.until,
        step=asked.span.step if over_time else None,
        by=(By.OUTCOME,) if over_time else (asked.by,),
        key_id=asked.key.id if asked.key else None,
        most=None if over_time else MOST_GROUPS + 1,
    )


async def _names(
    request: Request, visitor: Visitor, asked: Question, keys: list[ApiKey]
) -> Mapping[str, str]:
    """What ids stand for. Of nodes only one's own have names: what others call theirs is not told."""
    storage = hub_of(request).storage
    if asked.by is By.KEY:
        return {key.id: key.name for key in keys}
    if asked.by is By.NODE:
        return await storage.nodes.names(visitor.organisation.id, include_revoked=True)
    if asked.by is By.REGION:
        return {region.code: region.name for region in await storage.regions.list()}
    return {}


def _budgets(request: Request, visitor: Visitor, keys: list[ApiKey]) -> list[BudgetView]:
    hub = hub_of(request)
    now, tokens = hub.clock(), hub.budgets.tokens
    organisation = visitor.organisation
    ceiling = organisation.limits.monthly_tokens
    whole = (
        []
        if ceiling is None
        else [budget_view(f"All keys of {organisation.name}", tokens.used(organisation.id, now), ceiling)]
    )
    return whole + [
        budget_view(key.name, tokens.used(key.id, now), key.limits.monthly_tokens)
        for key in keys
        if key.limits.monthly_tokens is not None and key.is_active(now)
    ]
