"""The form that makes a key: what was typed, and what it means.

Pure. Owns the fields' names, defaults (the safe side) and every complaint about them. Knows nothing of
storage.
"""

import re
from dataclasses import dataclass

from hub.policy import Fleet, RegionTree, TrustClass
from hub.portal.forms import Form
from hub.portal.presenting import DAY_S

NEVER = "never"
EXPIRIES = (
    (NEVER, "Never"),
    ("1", "After a day"),
    ("7", "After a week"),
    ("30", "After 30 days"),
    ("90", "After 90 days"),
    ("365", "After a year"),
)
MAX_MODELS = 200
MAX_MODEL_LENGTH = 128
_BETWEEN_MODELS = re.compile(r"[\s,]+")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")


@dataclass(frozen=True, slots=True)
class KeyForm:
    """The fields as they stand in the form; the defaults allow least."""

    name: str = ""
    fleet: str = Fleet.OWN.value
    regions: tuple[str, ...] = ()
    minimum_trust: str = TrustClass.COMMUNITY.label
    models: str = ""
    expires: str = NEVER

    @classmethod
    def of(cls, form: Form) -> "KeyForm":
        """Keep what was typed."""
        return cls(
            form.text("name"),
            form.text("fleet"),
            tuple(form.all("regions")),
            form.text("minimum_trust") or TrustClass.COMMUNITY.label,
            form.text("models"),
            form.text("expires") or NEVER,
        )


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a sound form asks for. No regions means anywhere, `models=None` all of them."""

    name: str
    fleet: Fleet
    regions: frozenset[str]
    minimum_trust: TrustClass
    models: frozenset[str] | None
    expires_at: float | None


def read_key_form(form: Form, regions: RegionTree, now: float) -> tuple[KeyRequest | None, dict[str, str]]:
    """Read the form; returns the request, or None with one sentence for each field to put right."""
    typed = KeyForm.of(form)
    errors: dict[str, str] = {}
    fleet = _fleet(typed.fleet, errors)
    trust = _trust(typed.minimum_trust, errors)
    models = _models(typed.models, errors)
    expires_at = _expiry(typed.expires, now, errors)
    for code in typed.regions:
        if code not in regions:
            errors["regions"] = f"There is no region {code[:40]!r} on this Hub. Choose from the tree."
    if not typed.name:
        errors["name"] = "Give the key a name: you will look for it when you revoke it."
    if errors or fleet is None or trust is None:
        return None, errors
    return KeyRequest(typed.name, fleet, frozenset(typed.regions), trust, models, expires_at), {}


def _fleet(text: str, errors: dict[str, str]) -> Fleet | None:
    try:
        return Fleet(text)
    except ValueError:
        errors["fleet"] = "Choose whose machines may answer."
        return None


def _trust(text: str, errors: dict[str, str]) -> TrustClass | None:
    try:
        return TrustClass.parse(text)
    except ValueError:
        errors["minimum_trust"] = "Choose a trust class from the list."
        return None


def _models(text: str, errors: dict[str, str]) -> frozenset[str] | None:
    names = frozenset(name for name in _BETWEEN_MODELS.split(text) if name)
    unreadable = sorted(name for name in names if len(name) > MAX_MODEL_LENGTH or not _MODEL.fullmatch(name))
    if text and not names:
        errors["models"] = "That names no model. Write one id a line, or leave it empty to allow all."
    elif unreadable:
        errors["models"] = f"{unreadable[0][:60]!r} is no model id. Write one id a line."
    elif len(names) > MAX_MODELS:
        errors["models"] = f"At most {MAX_MODELS} models. Leave it empty to allow all."
    return names or None


def _expiry(text: str, now: float, errors: dict[str, str]) -> float | None:
    if text not in dict(EXPIRIES):
        errors["expires"] = "Choose when it expires from the list."
        return None
    return None if text == NEVER else now + int(text) * DAY_S
