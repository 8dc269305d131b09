"""The portal's pages as the navigation names them, and who sees which.

Owns their order, names and pictures: a new page is one more `Entry`. What a link leads to judges for itself
who may see it; that somebody is not shown a link keeps nobody out. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # pages are made with this at hand, and sessions need pages
    from hub.portal.sessions import Visitor


def _everybody(_visitor: Visitor) -> bool:
    return True


def _operators(visitor: Visitor) -> bool:
    return visitor.account.is_operator


@dataclass(frozen=True, slots=True)
class Entry:
    """One link.

    Attributes:
        path: where it leads; pages say the same as `here`.
        name: what it is called.
        picture: its icon in `_parts.html`.
        shown_to: who sees it.
        of_the_hub: it is of the whole Hub, and stands apart.
        at_hand: it stands in the bar on a phone; the others are behind *More*.
    """

    path: str
    name: str
    picture: str
    shown_to: Callable[[Visitor], bool] = _everybody
    of_the_hub: bool = False
    at_hand: bool = False


ENTRIES = (
    Entry("/", "Overview", "home", at_hand=True),
    Entry("/playground", "Playground", "playground", lambda visitor: visitor.may_ask, at_hand=True),
    Entry("/models", "Models", "models", at_hand=True),
    Entry("/nodes", "Nodes", "nodes", at_hand=True),
    Entry("/keys", "Keys", "keys"),
    Entry("/usage", "Usage", "usage"),
    Entry("/audit", "Audit", "audit", lambda visitor: visitor.account.role.may_audit),
    Entry("/members", "Members", "members", lambda visitor: visitor.may_see_members),
    Entry("/device", "Add node", "device", lambda visitor: visitor.may_change),
    Entry("/organisations", "Organisations", "organisations", _operators, of_the_hub=True),
    Entry("/regions", "Regions", "regions", _operators, of_the_hub=True),
    Entry("/trust", "Trust", "trust", _operators, of_the_hub=True),
)


@dataclass(frozen=True, slots=True)
class Navigation:
    """What somebody sees: on a phone `at_hand` and a button for the rest, else all of it."""

    at_hand: tuple[Entry, ...]
    more: tuple[Entry, ...]
    of_the_hub: tuple[Entry, ...]

    def is_behind(self, here: str | None) -> bool:
        """Whether the current page's link is not among those at hand."""
        return any(entry.path == here for entry in (*self.more, *self.of_the_hub))


def navigation(visitor: Visitor) -> Navigation:
    """Return what a visitor sees."""
    shown = [entry for entry in ENTRIES if entry.shown_to(visitor)]
    return Navigation(
        tuple(entry for entry in shown if entry.at_hand),
        tuple(entry for entry in shown if not entry.at_hand and not entry.of_the_hub),
        tuple(entry for entry in shown if entry.of_the_hub),
    )
