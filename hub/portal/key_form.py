"""The form that makes or changes a key: what was typed, and what it means.

Pure. Owns the fields' names, defaults (the safe side) and every complaint about them. Knows nothing of
storage.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hub.errors import InvalidInput
from hub.policy import Fleet, RegionTree, TrustClass
from hub.portal.forms import Form
from hub.portal.presenting import DAY_S
from hub.quotas import UNLIMITED, Allowance, checked_allowance
from hub.storage.records import ApiKey

NEVER = "never"
KEEP = "keep"
"""As it is: for a key that exists."""
EXPIRIES = (
    (NEVER, "Never"),
    ("1", "After a day"),
    ("7", "After a week"),
    ("30", "After 30 days"),
    ("90", "After 90 days"),
    ("365", "After a year"),
)
LIMITS = (
    ("requests_per_minute", "Requests a minute", "600"),
    ("tokens_per_minute", "Tokens a minute", "50k"),
    ("concurrent_requests", "Requests at once", "20"),
    ("monthly_tokens", "Tokens a month", "100M"),
)
"""Fields of the form, their labels, and an example of each."""
MAX_MODELS = 200
MAX_MODEL_LENGTH = 128
_BETWEEN_MODELS = re.compile(r"[\s,]+")
_MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")
_BETWEEN_DIGITS = re.compile(r"[\s,_']")
_LIMIT = re.compile(r"([0-9]{1,18})([kMG]?)")
_THOUSANDS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}


@dataclass(frozen=True, slots=True)
class KeyForm:
    """The fields as they stand in the form; the defaults allow least, but set no limit."""

    name: str = ""
    fleet: str = Fleet.OWN.value
    regions: tuple[str, ...] = ()
    minimum_trust: str = TrustClass.COMMUNITY.label
    models: str = ""
    expires: str = NEVER
    requests_per_minute: str = ""
    tokens_per_minute: str = ""
    concurrent_requests: str = ""
    monthly_tokens: str = ""

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
            *(form.text(name) for name, _, _ in LIMITS),
        )

    @classmethod
    def of_key(cls, key: ApiKey) -> "KeyForm":
        """Begin with what a key allows now."""
        return cls(
            key.name,
            key.fleet,
            tuple(sorted(key.regions)),
            key.minimum_trust,
            "\n".join(sorted(key.models or ())),
            KEEP,
            *limit_texts(key.limits),
        )

    @property
    def has_limits(self) -> bool:
        """Whether any limit is filled in."""
        return any(getattr(self, name) for name, _, _ in LIMITS)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """What a sound form asks for. No regions means anywhere, `models=None` all of them."""

    name: str
    fleet: Fleet
    regions: frozenset[str]
    minimum_trust: TrustClass
    models: frozenset[str] | None
    expires_at: float | None
    limits: Allowance = UNLIMITED


def read_key_form(
    form: Form, regions: RegionTree, now: float, key: ApiKey | None = None
) -> tuple[KeyRequest | None, dict[str, str]]:
    """Read the form; returns the request, or None with one sentence for each field to put right.

    Args:
        form: what was posted.
        regions: the operator's tree.
        now: UTC seconds since the epoch.
        key: the key that is changed; None makes one.
    """
    typed = KeyForm.of(form)
    errors: dict[str, str] = {}
    fleet = _fleet(typed.fleet, errors)
    trust = _trust(typed.minimum_trust, errors)
    models = _models(typed.models, errors)
    expires_at = _expiry(typed.expires, now, errors, key)
    limits = read_limits({name: getattr(typed, name) for name, _, _ in LIMITS}, errors)
    for code in typed.regions:
        if code not in regions:
            errors["regions"] = f"There is no region {code[:40]!r} on this Hub. Choose from the tree."
    if not typed.name:
        errors["name"] = "Give the key a name: you will look for it when you revoke it."
    if errors or fleet is None or trust is None:
        return None, errors
    return KeyRequest(typed.name, fleet, frozenset(typed.regions), trust, models, expires_at, limits), {}


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


def _expiry(text: str, now: float, errors: dict[str, str], key: ApiKey | None) -> float | None:
    if key is not None and text == KEEP:
        return key.expires_at
    if text not in dict(EXPIRIES):
        errors["expires"] = "Choose when it expires from the list."
        return None
    return None if text == NEVER else now + int(text) * DAY_S


def limit_texts(limits: Allowance) -> tuple[str, ...]:
    """Limits as the form's fields show them, in the order of `LIMITS`."""
    values = (getattr(limits, name) for name, _, _ in LIMITS)
    return tuple("" if limit is None else f"{limit:,}" for limit in values)


def read_limits(typed: Mapping[str, str], errors: dict[str, str]) -> Allowance:
    """Read the fields of `LIMITS`; what cannot be accepted is one more sentence in ``errors``."""
    found = {name: _limit(typed[name], name, label, errors) for name, label, _ in LIMITS}
    try:
        return checked_allowance(Allowance(**found))
    except InvalidInput as error:
        labels = {name: label for name, label, _ in LIMITS}
        errors[error.field] = f"{labels[error.field]}: {error.message}."
        return UNLIMITED


def _limit(text: str, name: str, label: str, errors: dict[str, str]) -> int | None:
    if not text:
        return None
    match = _LIMIT.fullmatch(_BETWEEN_DIGITS.sub("", text))
    if match is None:
        errors[name] = f"{label}: write a whole number, such as 600 or 50k, or leave it empty for no limit."
        return None
    return int(match[1]) * _THOUSANDS[match[2]]
