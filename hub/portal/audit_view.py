"""The audit log in words: what an event says to those who may read it.

Pure functions: names and the reader are arguments. Knows nothing of requests, storage or templates. An action
that has no words yet is shown by its name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hub.audit import Event
from hub.portal.presenting import moment_text
from hub.storage.records import Account

ACTIONS: Mapping[str, Mapping[str, str]] = {
    "Requests": {
        "request.refused": "Request refused",
        "playground.asked": "Asked in the playground",
    },
    "Keys": {
        "key.created": "API key created",
        "key.changed": "API key changed",
        "key.rotated": "API key given another secret",
        "key.revoked": "API key revoked",
    },
    "Nodes": {
        "enrollment.approved": "Machine approved",
        "enrollment.denied": "Machine refused",
        "enrollment.joined": "Machine joined with a token",
        "enrollment.join_refused": "Join token refused",
        "node.enrolled": "Machine fetched its credential",
        "node.created": "Node created",
        "node.changed": "Node changed",
        "node.commanded": "Command sent to a node",
        "node.key_announced": "Node announced a new key",
        "node.key_changed": "Node took up its new key",
        "node.drained": "Node put on drain",
        "node.resumed": "Node taken off drain",
        "node.revoked": "Node revoked",
        "node.erased": "Node erased",
        "join_token.created": "Join token created",
        "join_token.revoked": "Join token revoked",
    },
    "People": {
        "account.signed_in": "Signed in",
        "account.sign_in_refused": "Sign-in refused",
        "account.signed_out": "Signed out",
        "account.created": "Account created",
        "invitation.created": "Invitation made",
        "invitation.withdrawn": "Invitation withdrawn",
        "account.joined": "Invitation accepted",
        "account.role_changed": "Role changed",
        "account.removed": "Member removed",
        "account.password_changed": "Password changed",
        "account.second_step_on": "Second step switched on",
        "account.second_step_off": "Second step switched off",
        "account.second_step_reset": "Second step reset",
        "account.second_step_refused": "Code at sign-in refused",
        "account.recovery_code_used": "Recovery code used",
        "account.recovery_codes_replaced": "New recovery codes made",
        "account.provisioned": "Account made by single sign-on",
        "account.identity_linked": "Single sign-on connected",
        "account.identity_unlinked": "Single sign-on disconnected",
        "account.session_ended": "One of their sessions ended",
        "account.other_sessions_ended": "Their other sessions ended",
        "account.signed_out_everywhere": "Signed out everywhere",
        "account.erased": "Account erased",
        "admin_token.created": "Admin token created",
        "admin_token.revoked": "Admin token revoked",
        "admin_token.refused": "Admin token refused",
        "address.erased": "Address erased",
    },
    "The Hub": {
        "organisation.created": "Organisation created",
        "organisation.renamed": "Organisation renamed",
        "organisation.limits_changed": "Organisation's limits changed",
        "organisation.erased": "Organisation erased",
        "region.added": "Region added",
        "region.changed": "Region changed",
        "region.removed": "Region removed",
        "hub.created": "Hub created",
        "hub.key_changed": "The Hub's key is another",
        "hub.restored": "A backup put in the place of the Hub's data",
        "schema.migrated": "Database brought up to date",
        "audit.pruned": "Old events deleted",
    },
}
"""Every action by its group, with its words: what the filter offers."""

_WORDS = {action: words for group in ACTIONS.values() for action, words in group.items()}
_ACTORS = {
    "cli": "A command on the Hub's machine",
    "hub": "The Hub",
    "machine": "A machine",
    "nobody": "Somebody not signed in",
    "provider": "Somebody the identity provider vouches for",
}
_OF_THE_PERSON = frozenset({"address", "user"})
_EMPTY = {"models": "all", "regions": "anywhere", "expires_at": "never", "region": "none", "model": "unknown"}
"""What it means that one of these says nothing; any other that says nothing is left out."""
_TIMES = frozenset({"expires_at", "last_at", "made_at", "previous_expires_at"})
_HASH_SHOWN = 16
_MAX_SHOWN = 160  # characters of one detail


@dataclass(frozen=True, slots=True)
class AuditRow:
    """An event as the page shows it; times are UTC seconds since the epoch.

    Its place in everybody's log is shown to operators alone.
    """

    sequence: int | None
    at: float
    words: str
    refused: bool
    actor: str
    origin: str
    subject: str
    details: tuple[tuple[str, str], ...]


def audit_rows(events: Iterable[Event], names: Mapping[str, str], reader: Account) -> list[AuditRow]:
    """Describe events to somebody.

    Args:
        events: those to show.
        names: what stands behind ids, as far as the reader may know it.
        reader: who reads. Of another organisation's person, only an operator sees where they were.
    """
    return [_row(event, names, reader) for event in events]


def _row(event: Event, names: Mapping[str, str], reader: Account) -> AuditRow:
    details = event.facts()
    known = event.actor in names or not event.actor.startswith(("acct_", "cli"))
    traits = [str(details[name]) for name in sorted(_OF_THE_PERSON & set(details))]
    seen = [names.get(trait, "erased") for trait in traits] if known or reader.is_operator else []
    return AuditRow(
        sequence=event.sequence if reader.is_operator else None,
        at=event.time_ms / 1000,
        words=_WORDS.get(event.action, event.action),
        refused=event.action.endswith("refused"),
        actor=names.get(event.actor) or _ACTORS.get(event.actor) or _stranger(event.actor),
        origin=", ".join(seen),
        subject="" if event.subject == event.actor else names.get(event.subject, event.subject),
        details=tuple(_shown(details, names)),
    )


def _shown(details: Mapping[str, object], names: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name, value in details.items():
        text = _EMPTY.get(name, "") if value in (None, [], {}) else _text(value, names)
        if name in _TIMES and isinstance(value, float | int):
            text = moment_text(value)
        elif name == "policy_hash":
            text = f"{text[:_HASH_SHOWN]}…"
        if text and name not in _OF_THE_PERSON:
            yield name.replace("_", " "), text


def _stranger(actor: str) -> str:
    return "Another organisation's account" if actor.startswith("acct_") else actor


def _text(value: object, names: Mapping[str, str]) -> str:
    match value:
        case None:
            text = "none"
        case bool():
            text = "yes" if value else "no"
        case dict():
            text = ", ".join(f"{_text(each, names)} {name.replace('_', ' ')}" for name, each in value.items())
        case list():
            text = ", ".join(_text(each, names) for each in value)
        case str() if value.startswith("psd_"):
            text = names.get(value, "erased")
        case _:
            text = names.get(str(value), str(value))
    return (text or "none")[:_MAX_SHOWN]


def known_actions(wanted: Sequence[str]) -> list[str]:
    """Those of the wanted actions that there are."""
    return [action for action in wanted if action in _WORDS]
