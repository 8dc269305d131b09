"""`/usage`: what was answered, by day, model and key.

Owns how sums are shown. Knows nothing of how they are recorded.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from hub.portal.pages import PortalRoute, hub_of, page
from hub.portal.presenting import DAY_S
from hub.portal.sessions import SignedIn
from hub.storage.records import UsageTotal

DAYS = 30
MINIMUM_BAR = 1.5  # per cent of the height: a day with nothing is still seen as a day

router = APIRouter(route_class=PortalRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over any number of totals."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Bar:
    """One day of the chart; the height in per cent of the highest."""

    day: str
    tokens: int
    height: float


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One row of the table."""

    total: UsageTotal
    key: str


def sums(totals: Iterable[UsageTotal]) -> Sums:
    """Add totals up."""
    together = Sums()
    for total in totals:
        together = Sums(
            together.requests + total.requests,
            together.prompt_tokens + total.prompt_tokens,
            together.cached_tokens + total.cached_tokens,
            together.completion_tokens + total.completion_tokens,
        )
    return together


def bars(totals: Sequence[UsageTotal], days: Sequence[str]) -> list[Bar]:
    """Draw tokens by day, days without any included."""
    tokens = dict.fromkeys(days, 0)
    for total in totals:
        if total.day in tokens:
            tokens[total.day] += total.prompt_tokens + total.completion_tokens
    highest = max(tokens.values(), default=0) or 1
    return [Bar(day, count, max(100 * count / highest, MINIMUM_BAR)) for day, count in tokens.items()]


def day_names(now: float, count: int) -> list[str]:
    """Return the last days in UTC, oldest first, today included."""
    return [day_name(now - back * DAY_S) for back in reversed(range(count))]


def day_name(moment: float) -> str:
    """Return the UTC day of a moment, `YYYY-MM-DD`."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d")


def day_start(moment: float) -> float:
    """Return when the UTC day of a moment began."""
    return moment - moment % DAY_S


@router.get("/usage")
async def usage(request: Request, visitor: SignedIn) -> Response:
    """Show the last days."""
    hub = hub_of(request)
    now = hub.clock()
    since = day_start(now) - (DAYS - 1) * DAY_S
    organisation = visitor.organisation.id
    totals = await hub.storage.usage.totals(organisation, since=since, until=now + 1)
    names = {key.id: key.name for key in await hub.storage.keys.list(organisation)}
    return page(
        "usage.html",
        visitor=visitor,
        here="/usage",
        days=DAYS,
        rows=_rows(totals, names),
        total=sums(totals),
        bars=bars(totals, day_names(now, DAYS)),
    )


def _rows(totals: Iterable[UsageTotal], names: Mapping[str, str]) -> list[UsageRow]:
    return [UsageRow(total, names.get(total.key_id, total.key_id)) for total in totals]
