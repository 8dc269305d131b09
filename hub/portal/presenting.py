"""How numbers, times and regions read on a page.

Pure functions: the clock's time is an argument. Knows nothing of requests or templates.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from hub.policy import Fleet, Sharing, SharingKind, TrustClass
from hub.quotas import Allowance
from hub.storage.records import Region

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
MAX_INDENT = 4  # deeper regions are indented no further: on a phone there is no room for it

FLEETS: tuple[tuple[Fleet, str, str], ...] = (
    (
        Fleet.OWN,
        "My nodes only",
        "Only on your organisation's machines. With none of them online, requests are refused.",
    ),
    (
        Fleet.SHARED,
        "Mine and shared with us",
        "Also on machines another organisation lends yours by name: their owner's hardware sees the data.",
    ),
    (
        Fleet.ANY,
        "Any node, public ones too",
        "Also on machines anybody offers to the public: treat what you send as seen by strangers.",
    ),
)

SHARINGS: tuple[tuple[SharingKind, str, str], ...] = (
    (SharingKind.PRIVATE, "Private", "Only your organisation's keys can use it."),
    (
        SharingKind.ORGANISATIONS,
        "Named organisations",
        "Also keys of the organisations you name, if they chose to use shared nodes.",
    ),
    (SharingKind.PUBLIC, "Public", "Also every key on this Hub that accepts public nodes."),
)

TRUSTS: tuple[tuple[TrustClass, str, str], ...] = (
    (TrustClass.COMMUNITY, "Community", "Nobody looked at the machine; its owner vouches for it."),
    (TrustClass.VERIFIED, "Verified", "The operator knows who runs it and where."),
    (TrustClass.TRUSTED, "Trusted", "Run under an agreement with the operator."),
    (TrustClass.CONFIDENTIAL, "Confidential", "For the most sensitive work: the operator vouches for it."),
)


@dataclass(frozen=True, slots=True)
class RegionRow:
    """A region in the order and at the depth in which the tree is drawn."""

    code: str
    name: str
    depth: int

    @property
    def indent(self) -> int:
        """The depth, as far as it is drawn."""
        return min(self.depth, MAX_INDENT)


def region_rows(regions: Iterable[Region]) -> list[RegionRow]:
    """Draw the tree: parents before children, siblings by name. A broken parent makes a root."""
    by_code = {region.code: region for region in regions}
    children: dict[str | None, list[Region]] = {}
    for region in sorted(by_code.values(), key=lambda region: (region.name.casefold(), region.code)):
        parent = region.parent if region.parent in by_code else None
        children.setdefault(parent, []).append(region)
    rows: list[RegionRow] = []
    pending = [(region, 0) for region in reversed(children.get(None, []))]
    while pending:
        region, depth = pending.pop()
        rows.append(RegionRow(region.code, region.name or region.code, depth))
        pending += [(child, depth + 1) for child in reversed(children.get(region.code, []))]
    return rows


def bytes_text(count: float) -> str:
    """Return a size in binary units with about three digits: `98.4 MB` would be `93.8 MiB`."""
    size = float(max(count, 0))
    for unit in ("B", "KiB", "MiB", "GiB"):
        if round(size) < 1024:  # as it is shown: 1023.9 KiB would read as 1024 KiB
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def number_text(count: int) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{count:,}"


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return `1 node`, `2 nodes`."""
    return f"{number_text(count)} {one if count == 1 else many or one + 's'}"


def span_text(seconds: float) -> str:
    """Return a length of time in its largest whole unit."""
    seconds = max(seconds, 0)
    if seconds < MINUTE_S:
        return "less than a minute"
    for size, name in ((DAY_S, "day"), (HOUR_S, "hour"), (MINUTE_S, "minute")):
        if seconds >= size:
            return counted(int(seconds // size), name)
    raise AssertionError("unreachable: a minute or more has a unit")


def ago_text(then: float | None, now: float) -> str:
    """Say how long ago a moment was."""
    return "never" if then is None else f"{span_text(now - then)} ago"


def until_text(then: float | None, now: float) -> str:
    """Say how far ahead a moment is."""
    if then is None:
        return "never"
    return f"in {span_text(then - now)}" if then > now else f"{span_text(now - then)} ago"


def moment_text(seconds: float) -> str:
    """Return a moment in UTC, to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def moment_iso(seconds: float) -> str:
    """Return a moment as `<time datetime>` wants it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def limit_words(limits: Allowance) -> tuple[str, ...]:
    """Say what a key may use, a line for each limit."""
    told = (
        (limits.requests_per_minute, "requests a minute"),
        (limits.tokens_per_minute, "tokens a minute"),
        (limits.concurrent_requests, "at once"),
        (limits.monthly_tokens, "tokens a month"),
    )
    return tuple(f"{number_text(count)} {what}" for count, what in told if count is not None)


def fleet_text(fleet: str) -> str:
    """Name a stored fleet; text nobody can read is said to refuse, as the policy does."""
    return next((name for kind, name, _ in FLEETS if kind == fleet), "Unreadable: refuses everything")


def trust_text(trust: TrustClass | None) -> str:
    """Name a trust class."""
    return next((name for kind, name, _ in TRUSTS if kind == trust), "Unreadable: serves nobody")


def sharing_text(sharing: Sharing | None, organisations: Mapping[str, str] | None = None) -> str:
    """Name a sharing rule, with the organisations it names."""
    if sharing is None:
        return "Unreadable: serves nobody"
    if sharing.kind is SharingKind.ORGANISATIONS:
        names = sorted((organisations or {}).get(code, code) for code in sharing.organisations)
        return "Shared with " + (", ".join(names) or "nobody yet")
    return next(name for kind, name, _ in SHARINGS if kind is sharing.kind)
