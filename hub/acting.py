"""Who is acting now, for the audit log.

Owns the one place where it is said: whoever lets somebody in (portal, commands, enrollment) says who it is,
and whatever is then changed in that task is written down as theirs. Must not know storage or HTTP. Where
nobody said anything the Hub itself acts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from hub.permissions import Role


@dataclass(frozen=True, slots=True)
class Personal:
    """Something that tells who a person is: the audit log keeps a pseudonym of it, which can be erased.

    ``kind`` is what it is (``address``, ``user``).
    """

    kind: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Leave:
    """By what somebody was let in, so that it is asked for again in the transaction in which they act.

    Attributes:
        role: the one they had then.
        session: what the database knows a person's signed-in browser by; ``None`` for an admin token.
    """

    role: Role
    session: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts.

    Attributes:
        id: an account's, node's or join token's id; ``cli`` for commands on the Hub's machine, ``hub`` for
            itself.
        organisation_id: whose member or machine it is.
        address: where a request came from.
        user: the user of the Hub's machine who ran a command.
        leave: what lets them act; ``None`` where nothing does that could end: for the Hub, for commands, and
            for machines, which prove who they are with what they ask.
    """

    id: str
    organisation_id: str | None = None
    address: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    leave: Leave | None = None

    @property
    def traits(self) -> dict[str, Personal]:
        """What the log keeps of the person behind it."""
        known = {"address": self.address, "user": self.user}
        return {kind: Personal(kind, value) for kind, value in known.items() if value is not None}


HUB = Actor("hub")
_acting: ContextVar[Actor] = ContextVar("acting", default=HUB)


def current_actor() -> Actor:
    """Who acts in this task."""
    return _acting.get()


def proved_as(identifier: str, organisation_id: str | None) -> Actor:
    """Whoever acts in this task, once it has proved to be somebody."""
    return replace(current_actor(), id=identifier, organisation_id=organisation_id, leave=None)


def act_as(actor: Actor) -> None:
    """From here on, in this task, it is this actor's doing."""
    _acting.set(actor)


@contextmanager
def acting_as(actor: Actor) -> Iterator[None]:
    """What is done inside is this actor's doing."""
    before = _acting.set(actor)
    try:
        yield
    finally:
        _acting.reset(before)
