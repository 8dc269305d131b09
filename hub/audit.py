"""The audit log's chain: what an event is, how it is hashed, and what a check of the chain finds.

Owns the canonical form that is hashed and every kind of finding. Pure: no storage, no clock, no keys; the
signed checkpoints that a chain is held against are :mod:`hub.checkpoints`'s.

Each event carries the hash of the one before it, so an edit, a deletion, an insertion or a change of order
breaks the chain where it was made. Whoever can write to the database can also hash everything anew from there
on, or cut off the end: that is what checkpoints find, and those that are kept elsewhere find it for sure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Any

GENESIS = "0" * 64
"""The hash that the first event follows."""
FORM = 1
"""The version of what is hashed."""
MAX_FINDINGS = 100
"""Findings that are told one by one; a chain that was hashed anew by other rules would give one an event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event as it is stored. Nothing in it tells who a person is: see :mod:`hub.storage.pseudonyms`.

    Attributes:
        sequence: 1 for the first of all; no number is left out.
        time_ms: when it happened, in milliseconds since the epoch, UTC; whole, because it is hashed.
        organisation_id: whose event it is, ``None`` for one of the whole Hub.
        actor: who did it: an id, ``cli`` or ``hub``.
        action: what was done, such as ``key.created``.
        subject: the id of what it was done to, or its name where it has no id (a region).
        details: an object as canonical JSON.
        batch: where the event came from, if not straight from the act; an event comes from a batch once.
        previous_hash: the hash of the event before it.
        hash: `event_hash` of all of this.
    """

    sequence: int
    time_ms: int
    organisation_id: str | None
    actor: str
    action: str
    subject: str
    details: str
    batch: str | None
    previous_hash: str
    hash: str = ""

    def facts(self) -> dict[str, Any]:
        """The details; none where they cannot be read."""
        try:
            found = json.loads(self.details)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The Hub's word that its log had this head; ``root`` where what came before was pruned by it."""

    hub_id: str
    sequence: int
    hash: str
    time_ms: int
    root: bool = False


class Problem(StrEnum):
    """What can be wrong with a chain."""

    EDITED = "edited"
    MISSING = "missing"
    ORDER = "order"
    UNLINKED = "unlinked"
    REWRITTEN = "rewritten"
    CUT = "cut"
    HEAD = "head"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and where: the sequence at which it was noticed."""

    problem: Problem
    sequence: int
    words: str


def ids_in(events: Iterable[Event]) -> set[str]:
    """Everything in these events that may have a name."""
    found = set()
    for event in events:
        found |= {event.actor, event.subject}
        found |= {value for value in event.facts().values() if isinstance(value, str)}
    return found


def canonical(details: Mapping[str, Any]) -> str:
    """An object as it is stored and hashed: JSON with sorted keys, without spaces, in UTF-8.

    Raises:
        ValueError, TypeError: it holds what JSON cannot.
    """
    return _compact(dict(details))


def event_hash(event: Event) -> str:
    """The SHA-256, in hex, of the event's fields as a JSON array; its own hash is not among them."""
    fields = [
        *(FORM, event.sequence, event.time_ms, event.organisation_id, event.actor, event.action),
        *(event.subject, event.details, event.batch, event.previous_hash),
    ]
    return sha256(_compact(fields).encode("utf-8", "surrogatepass")).hexdigest()


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


class ChainCheck:
    """Looks at a chain, one event after the other in the order in which they are kept."""

    def __init__(self, checkpoints: Iterable[Checkpoint] = (), head: tuple[int, str] | None = None) -> None:
        """Begin before the first event.

        Args:
            checkpoints: all that are known and whose signature holds. The newest root among them is where the
                chain begins; without one it begins at event 1.
            head: sequence and hash of the last event as the log's own head remembered them, before any event
                was read; ``None`` where there is no head to ask.
        """
        self._head = head
        known = sorted(checkpoints, key=lambda each: each.sequence)
        self._root = next((each for each in reversed(known) if each.root), None)
        self.findings: list[Finding] = []
        self.events = 0
        self.sequence = self._root.sequence if self._root else 0
        self.hash = self._root.hash if self._root else GENESIS
        self._due: dict[int, list[Checkpoint]] = {}
        for checkpoint in known:
            if checkpoint.sequence > self.sequence:
                self._due.setdefault(checkpoint.sequence, []).append(checkpoint)
            elif checkpoint.sequence == self.sequence and checkpoint.hash != self.hash:
                self._find(Problem.REWRITTEN, checkpoint.sequence, _signed(checkpoint, "another event"))

    def take(self, event: Event) -> None:
        """Look at the next event."""
        expected = self.sequence + 1
        if event.sequence > expected:
            self._find(Problem.MISSING, expected, _missing(expected, event.sequence - 1))
        elif event.sequence < expected:
            words = f"event {event.sequence} stands after event {self.sequence}"
            self._find(Problem.ORDER, event.sequence, words)
        elif event.previous_hash != self.hash:
            before = f"event {self.sequence}" if self.events or self._root else "the beginning"
            words = f"event {event.sequence} was not written after {before} as it is here"
            self._find(Problem.UNLINKED, event.sequence, words)
        if event_hash(event) != event.hash:
            self._find(Problem.EDITED, event.sequence, f"event {event.sequence} is not as it was written")
        self.events += 1
        self.sequence, self.hash = event.sequence, event.hash
        for checkpoint in self._due.pop(event.sequence, ()):
            if checkpoint.hash != event.hash:
                self._find(Problem.REWRITTEN, event.sequence, _signed(checkpoint, "another event"))
        if self._head is not None and self._head[0] == event.sequence and self._head[1] != event.hash:
            self._find(
                Problem.HEAD, event.sequence, f"the log's head remembers another event {event.sequence}"
            )

    def finish(self, head: int | None = None) -> list[Finding]:
        """Everything that was found.

        Args:
            head: the sequence of the last event as the head remembers it now, after all events were read;
                where the log is in use it may have gone on meanwhile.
        """
        for sequence, checkpoints in sorted(self._due.items()):
            if sequence > self.sequence:
                words = _signed(checkpoints[0], "an event") + f"; the log ends with event {self.sequence}"
                self._find(Problem.CUT, sequence, words)
            else:
                self._find(
                    Problem.MISSING, sequence, _signed(checkpoints[0], "an event") + ", which is not here"
                )
        too_short = self._head is not None and self._head[0] > self.sequence
        if too_short or (head is not None and head < self.sequence):
            remembered = self._head[0] if too_short and self._head else head
            words = f"the log ends with event {self.sequence}, its head remembers event {remembered}"
            self._find(Problem.HEAD, self.sequence, words)
        return self.findings

    def _find(self, problem: Problem, sequence: int, words: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(problem, sequence, words))


def _missing(first: int, last: int) -> str:
    return f"event {first} is missing" if first == last else f"events {first} to {last} are missing"


def _signed(checkpoint: Checkpoint, what: str) -> str:
    return f"a checkpoint signed by the Hub says that event {checkpoint.sequence} is {what}"
