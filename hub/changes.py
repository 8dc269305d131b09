"""News of what changed, inside one Hub process.

Owns who is told. Those who change something (portal, enrollment, commands) publish; those who keep copies
(registry, key cache) subscribe and obey at once. It carries identifiers only: a subscriber reads the new
state from storage. Other processes are reached by the revision counter in the settings table, not from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field

from hub.errors import StorageUnavailable


@dataclass(frozen=True, slots=True)
class KeyChanged:
    """A key was made, changed or revoked."""

    key_id: str


@dataclass(frozen=True, slots=True)
class NodeChanged:
    """A node was enrolled, renamed, put on drain or off, or its region, trust class or sharing changed."""

    node_id: str


@dataclass(frozen=True, slots=True)
class NodeRevoked:
    """A node was revoked: its session must end now."""

    node_id: str


@dataclass(frozen=True, slots=True)
class RegionsChanged:
    """The tree of regions changed."""


Change = KeyChanged | NodeChanged | NodeRevoked | RegionsChanged
Subscriber = Callable[[Change], None]


@dataclass(slots=True)
class _Waiting:
    """What is to be told later; nothing more once that is over."""

    changes: list[Change] = field(default_factory=list)
    over: bool = False


_waiting: ContextVar[_Waiting | None] = ContextVar("waiting", default=None)


class Changes:
    """A list of subscribers, called in order, in the publisher's task."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call ``subscriber`` for every change from now on; returns what ends it."""
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    @contextmanager
    def announcing(self, change: Change) -> Iterator[None]:
        """Publish a change once it is stored, and where nobody knows whether it was.

        A database that falls silent may have stored what it did not acknowledge. So the copies go in that
        case too: a revocation of which nobody knows whether it was stored is obeyed here all the same.
        """
        try:
            yield
        except StorageUnavailable:
            self.publish(change)
            raise
        self.publish(change)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Tell what is published inside, in this task, at the end; where it ends in an error, never.

        For what is changed in one transaction: whoever hears of it reads it, and must not read too soon.
        Where nobody knows whether it was stored it is told all the same, as by `announcing`.
        """
        waiting = _Waiting()
        before = _waiting.set(waiting)
        try:
            yield
        except StorageUnavailable:
            self._tell(waiting, before)
            raise
        except BaseException:
            _waiting.reset(before)
            waiting.over = True
            raise
        self._tell(waiting, before)

    def _tell(self, waiting: _Waiting, before: Token[_Waiting | None]) -> None:
        _waiting.reset(before)
        waiting.over = True
        for change in waiting.changes:
            self.publish(change)

    def publish(self, change: Change) -> None:
        """Tell everyone. One that raises stops none of the others; its error reaches the publisher after."""
        waiting = _waiting.get()
        if waiting is not None and not waiting.over:
            waiting.changes.append(change)
            return
        with ExitStack() as everyone:
            for subscriber in reversed(self._subscribers):
                everyone.callback(subscriber, change)
