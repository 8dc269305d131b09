"""What enrollment answers.

Owns the shape of the answers; their wire form is :mod:`hub.api.enroll`'s.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hub.storage.records import JoinToken, Node


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What a machine is told when it asks; times in seconds."""

    device_code: str = field(repr=False)
    user_code: str
    expires_in: float
    interval: float


@dataclass(frozen=True, slots=True)
class Pending:
    """Nobody has decided yet; poll again after ``interval`` seconds."""

    interval: float


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Polled too early; the interval has grown to ``interval`` seconds."""

    interval: float


@dataclass(frozen=True, slots=True)
class Denied:
    """Somebody refused."""


@dataclass(frozen=True, slots=True)
class Expired:
    """The code is unknown, too old, or used already."""


@dataclass(frozen=True, slots=True)
class Enrolled:
    """The machine is a node now, and this is its credential."""

    node: Node
    credential: str = field(repr=False)


Poll = Pending | SlowDown | Denied | Expired | Enrolled


@dataclass(frozen=True, slots=True)
class NewJoinToken:
    """A stored join token together with its secret, to be shown once."""

    token: JoinToken
    secret: str = field(repr=False)
