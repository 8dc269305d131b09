"""What the audit log is told of outside any transaction: refusals, commands to nodes, refused sign-ins.

Owns the notes on their way: each is one line of a spool (:mod:`hub.spool`), so that telling needs no
database, survives the process, and cannot fill the log: what repeats itself within one batch becomes one
event with its count, first and last. Must not know HTTP.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from hub.acting import Actor, current_actor
from hub.audit import canonical
from hub.errors import SpoolUnavailable
from hub.spool import Pace, Spool
from hub.storage.chain import Act
from hub.storage.records import Account, AdminToken, ApiKey

if TYPE_CHECKING:  # storage is handed in; the names alone must not pull it in here
    from hub.jobs import NodeJob
    from hub.storage.repositories import Storage

log = logging.getLogger(__name__)

FLUSH_EVERY_S = 15.0
MAX_LINES = 100_000
"""Lines that are handed to storage together: beyond it a flood becomes a second event, not more memory."""
MAX_KINDS = 8
"""Different events that one actor's notes of one action may become in a batch; the rest is one more."""


class Note(Struct, frozen=True, kw_only=True):
    """One line. ``reference`` is what differs each time, such as a request's id."""

    at: float
    action: str
    actor: str
    subject: str
    organisation_id: str | None = None
    address: str | None = None
    user: str | None = None
    reference: str | None = None
    details: dict[str, Any] = field(default_factory=dict)


class Journal(Spool[Note]):
    """Notes of what happened. An async context manager: entering stores what an earlier process left.

    Args:
        storage: where they become events.
        directory: where they wait.
        clock: UTC seconds since the epoch.
    """

    def __init__(self, storage: Storage, directory: Path, clock: Callable[[], float]) -> None:
        async def store(batch: str, notes: Sequence[Note]) -> None:
            await storage.audit.add(batch, acts_of(notes))

        self._clock = clock
        pace = Pace(every_s=FLUSH_EVERY_S, full=MAX_LINES, at_once=MAX_LINES)
        super().__init__(directory, Note, store, name="audit", pace=pace)

    def note(
        self,
        action: str,
        subject: str,
        *,
        of: str | None = None,
        by: Actor | None = None,
        reference: str | None = None,
        **details: Any,
    ) -> None:
        """Note something; durable when this returns.

        Args:
            action: what happened, such as ``node.commanded``.
            subject: the id of what it happened to.
            of: the organisation whose event it is; that of the actor where unset.
            by: who did it; whoever acts in this task where unset.
            reference: what differs each time.
            details: what JSON can hold, no prompt and no secret; equal notes are counted together.

        Raises:
            SpoolUnavailable: it cannot be written down.
        """
        actor = by or current_actor()
        self.record(
            Note(
                at=self._clock(),
                action=action,
                actor=actor.id,
                subject=subject,
                organisation_id=of or actor.organisation_id,
                address=actor.address,
                user=actor.user,
                reference=reference,
                details=details,
            )
        )

    def refused(
        self, request_id: str, key: ApiKey, model: str | None, code: str, counts: Mapping[str, int]
    ) -> None:
        """Note a request that a key's policy refused. It stays refused where that cannot be written down.

        Args:
            request_id: whose.
            key: that asked.
            model: that was asked for; ``None`` where the Hub knows none of that name, which may be anything.
            code: what the caller was told.
            counts: how many of its own nodes each gate refused.
        """
        asked = {"model": model, "code": code, "gates": dict(counts)}
        self._attempt("request.refused", key.id, Actor(key.id, key.organisation_id), request_id, **asked)

    def commanded(self, job: NodeJob) -> None:
        """Note what a node is told to do, before it is.

        Raises:
            SpoolUnavailable: it cannot be written down, so it must not be done.
        """
        self.note("node.commanded", job.node_id, command=job.action, model=job.model)

    def sign_in_refused(self, account: Account | None, address: str) -> None:
        """Note a refused sign-in. Whose account was tried is known only where there is one."""
        whose = None if account is None else account.organisation_id
        self._attempt(
            "account.sign_in_refused", account.id if account else "", Actor("nobody", whose, address=address)
        )

    def second_step_refused(self, account: Account, address: str) -> None:
        """Note a refused code of somebody who had given the right password."""
        by = Actor("nobody", account.organisation_id, address=address)
        self._attempt("account.second_step_refused", account.id, by)

    def admin_token_refused(self, token: AdminToken | None, address: str) -> None:
        """Note a refused admin token. Which one it was is known only where there is one."""
        whose = None if token is None else token.organisation_id
        self._attempt(
            "admin_token.refused", token.id if token else "", Actor("nobody", whose, address=address)
        )

    def _attempt(
        self, action: str, subject: str, by: Actor, reference: str | None = None, **details: Any
    ) -> None:
        try:
            self.note(action, subject, by=by, reference=reference, **details)
        except SpoolUnavailable as error:
            fields = {"event": "audit.lost", "action": action, "error": str(error)}
            log.error("a refusal is not in the audit log", extra=fields)  # noqa: TRY400 - its words say all


def acts_of(notes: Iterable[Note]) -> list[Act]:
    """The events that notes become: equal ones together, with their count, first and last. Pure."""
    groups: dict[tuple[str, ...], list[Note]] = {}
    kinds: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
    for note in notes:
        who = (note.action, note.actor, note.organisation_id or "", note.address or "", note.user or "")
        what: tuple[str, ...] = (note.subject, canonical(note.details))
        seen = kinds.setdefault(who, set())
        if what not in seen and len(seen) >= MAX_KINDS:
            what = ()
        seen.add(what)
        groups.setdefault((*who, *what), []).append(note)
    return [_act(group, alike=len(key) > _OF_WHO) for key, group in groups.items()]


_OF_WHO = 5  # parts of a group's key that say who


def _act(notes: Sequence[Note], *, alike: bool) -> Act:
    first, last = notes[0], notes[-1]
    details: dict[str, Any] = dict(first.details) if alike else {"various": True}
    details |= {} if len(notes) == 1 else {"count": len(notes), "last_at": last.at}
    if first.reference is not None:
        details["reference"] = first.reference
        details |= {} if len(notes) == 1 else {"last_reference": last.reference}
    return Act(
        action=first.action,
        actor=Actor(first.actor, first.organisation_id, address=first.address, user=first.user),
        subject=first.subject if alike else "",
        organisation_id=first.organisation_id,
        details=details,
        at=first.at,
    )
