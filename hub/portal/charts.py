"""Usage as it is drawn: bars over time, and shares of a whole.

Pure. Owns the geometry and the words of a chart; templates only place them. Knows nothing of storage or
requests. Heights and widths are per cent of the drawing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from hub.portal.presenting import DAY_S, number_text
from hub.quotas import month_of, month_start
from hub.storage.records import UsageSum
from hub.storage.rollups import Step

MINIMUM_BAR = 1.5
"""Per cent of the height: a span in which nothing was used is still seen as a span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A choice of how far back a page looks, and in which steps."""

    name: str
    words: str
    step: Step
    count: int

    def starts(self, now: float) -> list[int]:
        """When each step begins, UTC seconds since the epoch, oldest first; the last is the present one."""
        width = self.step.width_s
        last = int(now // width) * width
        return [last - back * width for back in reversed(range(self.count))]


SPANS = (
    Span("day", "24 hours", Step.HOUR, 24),
    Span("week", "7 days", Step.HOUR, 168),
    Span("month", "30 days", Step.DAY, 30),
    Span("quarter", "90 days", Step.DAY, 90),
)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over any number of groups."""

    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Bar:
    """One step of a chart: completion stands on prompt."""

    start: int
    label: str
    sums: Sums
    prompt_height: float
    height: float

    @property
    def words(self) -> str:
        """What the bar says."""
        tokens, requests = number_text(self.sums.tokens), number_text(self.sums.requests)
        return f"{self.label}: {tokens} tokens, {requests} requests"


@dataclass(frozen=True, slots=True)
class Share:
    """One group of a breakdown."""

    name: str
    id: str
    sums: Sums
    width: float


@dataclass(frozen=True, slots=True)
class BudgetView:
    """How much of a month's budget is used; `tone` is `good`, `warn` from 80 per cent, `bad` at its end."""

    name: str
    used: int
    budget: int
    percent: float
    tone: str


def sums(found: Iterable[UsageSum]) -> Sums:
    """Add up."""
    each = list(found)
    return Sums(
        sum(one.requests for one in each),
        sum(one.prompt_tokens for one in each),
        sum(one.cached_tokens for one in each),
        sum(one.completion_tokens for one in each),
    )


def bars(found: Sequence[UsageSum], starts: Sequence[int], step: Step) -> list[Bar]:
    """Draw tokens over time, steps without any included."""
    by_start: dict[int, list[UsageSum]] = {start: [] for start in starts}
    for one in found:
        if one.start in by_start:
            by_start[one.start].append(one)
    counted = {start: sums(each) for start, each in by_start.items()}
    highest = max((each.tokens for each in counted.values()), default=0) or 1
    return [
        Bar(
            start,
            step_text(start, step),
            each,
            100 * each.prompt_tokens / highest,
            max(100 * each.tokens / highest, MINIMUM_BAR),
        )
        for start, each in counted.items()
    ]


def shares(found: Iterable[UsageSum], names: Mapping[str, str]) -> list[Share]:
    """Draw groups beside each other, those that used most first; what has no name goes by its id."""
    ordered = sorted(found, key=lambda one: (-one.tokens, -one.requests, one.group))
    most = max((one.tokens for one in ordered), default=0) or 1
    return [
        Share(
            names.get(one.group[0], one.group[0]) or "none",
            one.group[0],
            sums([one]),
            100 * one.tokens / most,
        )
        for one in ordered
    ]


def budget_view(name: str, used: int, budget: int) -> BudgetView:
    """Draw a budget; beyond its end it is full."""
    percent = min(100.0 * used / budget, 100.0) if budget > 0 else 100.0
    tone = "bad" if used >= budget else "warn" if percent >= 80 else "good"
    return BudgetView(name, used, budget, round(percent, 1), tone)


def step_text(start: float, step: Step) -> str:
    """Name a step in UTC: `2026-01-31`, `2026-01-31 05:00`."""
    form = "%Y-%m-%d" if step is Step.DAY else "%Y-%m-%d %H:00"
    return datetime.fromtimestamp(start, UTC).strftime(form)


def day_start(moment: float) -> float:
    """Return when the UTC day of a moment began."""
    return moment - moment % DAY_S


def next_month_text(now: float) -> str:
    """Name the day on which the next month begins, UTC."""
    return step_text(month_start(month_of(now) + 1), Step.DAY)
