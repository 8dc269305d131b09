"""The forms that several resources share: ids, names, times, limits, pages.

Owns what is accepted: bounded everywhere, of the very type that is asked for, nothing unknown. Times go both
ways as RFC 3339 says, in UTC.
"""

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from hub.errors import InvalidInput
from hub.identifiers import NAME_LIMIT, Kind
from hub.policy import Sharing, SharingKind, TrustClass
from hub.quotas import LARGEST_COUNT, LARGEST_TOKENS, Allowance

MAX_PAGE = 200
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Wire(BaseModel):
    """Anything on the wire."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def id_path(kind: Kind) -> object:
    """What an id in a path looks like."""
    return Path(pattern=f"^{kind}_[a-z2-7]{{20}}$", examples=[f"{kind}_kq3m5x7zt2vw4y6abcde"])


def _checked_moment(text: str) -> str:
    """Hold a text to RFC 3339.

    Raises:
        ValueError: it is no date and time with an offset.
    """
    wrong = ValueError("must be a time such as 2026-01-31T12:00:00Z")
    if not _MOMENT.fullmatch(text):
        raise wrong
    try:
        datetime.fromisoformat(text.upper())
    except ValueError:  # the thirtieth of February
        raise wrong from None
    return text


def _whole(value: object) -> object:
    """To JSON Schema a number without a fraction is an integer, however it is written: 1.0 too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Name = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT, examples=["my-app"])]
REGION_CODE = r"^[a-z0-9]+(-[a-z0-9]+)*$"
RegionCode = Annotated[str, Field(pattern=REGION_CODE, max_length=32, examples=["eu-de"])]
OrganisationId = Annotated[str, Field(pattern=r"^org_[a-z2-7]{20}$")]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=128)]
Trust = Literal["community", "verified", "trusted", "confidential"]
Moment = Annotated[
    str,
    Field(max_length=40, json_schema_extra={"format": "date-time"}, examples=["2027-01-31T12:00:00Z"]),
    AfterValidator(_checked_moment),
]
Told = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time as it is answered."""
WHOLE = BeforeValidator(_whole)
"""Stands behind a strict integer: an integer is what JSON Schema means by it, no text and no truth value."""
Count = Annotated[int, Field(strict=True, ge=1, le=LARGEST_COUNT), WHOLE]
Tokens = Annotated[int, Field(strict=True, ge=1, le=LARGEST_TOKENS), WHOLE]
PageSize = Annotated[int, Query(ge=1, le=MAX_PAGE, description="So many at most.")]


class Limits(Wire):
    """How much may be used; null is no limit."""

    requests_per_minute: Count | None = None
    tokens_per_minute: Tokens | None = None
    concurrent_requests: Count | None = None
    monthly_tokens: Tokens | None = None

    @property
    def allowance(self) -> Allowance:
        """The same for the domain."""
        return Allowance(**self.model_dump())

    @classmethod
    def of(cls, allowance: Allowance) -> "Limits":
        """What is stored, unchecked: a damaged limit is shown as it is."""
        return cls.model_construct(**{name: getattr(allowance, name) for name in cls.model_fields})


class SharingRule(Wire):
    """Who else may use a node; `organisations` are named where the kind is `organisations`."""

    kind: SharingKind
    organisations: Annotated[list[OrganisationId], Field(max_length=100)] = []

    @property
    def sharing(self) -> Sharing:
        """The same for the domain."""
        return Sharing(self.kind, frozenset(self.organisations))

    @classmethod
    def of(cls, sharing: Sharing | None) -> "SharingRule | None":
        """What is stored; None where it cannot be read, and so shares with nobody."""
        if sharing is None:
            return None
        return cls(kind=sharing.kind, organisations=sorted(sharing.organisations))


Item = TypeVar("Item")
Stored = TypeVar("Stored")
Shown = TypeVar("Shown", bound=BaseModel)


class Page(Wire, Generic[Item]):
    """Some of a list. `next` is the `after` that gives what follows, null at the end."""

    data: list[Item]
    next: str | None


def page(
    stored: Sequence[Stored], limit: int, show: Callable[[Stored], Shown], place: Callable[[Stored], str]
) -> Page[Shown]:
    """A page of which one more than asked for was read, to know whether anything follows."""
    kept = stored[:limit]
    following = place(kept[-1]) if len(stored) > limit else None
    return Page[Shown].model_construct(data=[show(each) for each in kept], next=following)


def told(seconds: float) -> str:
    """A time as RFC 3339 writes it, to the millisecond."""
    text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"


def maybe_told(seconds: float | None) -> str | None:
    """The same where there may be none."""
    return None if seconds is None else told(seconds)


def seconds_of(moment: str | None, field: str) -> float | None:
    """UTC seconds since the epoch.

    Raises:
        InvalidInput: it is later than anything here lasts.
    """
    if moment is None:
        return None
    found = datetime.fromisoformat(moment.upper())
    if found > _LATEST:
        raise InvalidInput(field, f"must be before {_LATEST.year}")
    return found.timestamp()


def trust_of(name: Trust) -> TrustClass:
    """The trust class of this name."""
    return TrustClass.parse(name)
