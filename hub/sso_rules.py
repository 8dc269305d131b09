"""What an identity provider's word is worth here: whom it lets in, into which organisation, with which role.

Owns the operator's rules and how claims are read by them. Pure. What no rule names is let in nowhere, and a
claim that is not what it should be counts as absent. Must not know tokens, HTTP or accounts.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hub.permissions import Role

ANYBODY = "*"
"""The value of a rule that everybody fits whose e-mail address may sign in."""

MAX_SUBJECT = 255  # OpenID Connect Core 1.0, section 2
_MAX_EMAIL = 254  # RFC 5321


@dataclass(frozen=True, slots=True)
class Rule:
    """Whoever has this value in the claim belongs to this organisation, by its name, with this role."""

    value: str
    organisation: str
    role: Role


def parse_rule(text: str) -> Rule:
    """Read ``VALUE=ORGANISATION:ROLE``; the value may hold ``=``, both may hold ``:``.

    Raises:
        ValueError: it is no such rule, or gives the role of operator, which is of the whole Hub.
    """
    left, colon, role = text.rpartition(":")
    value, equals, organisation = (part.strip() for part in left.rpartition("="))
    if not (colon and equals and value and organisation):
        raise ValueError(f"{text!r} is not VALUE=ORGANISATION:ROLE, such as staff=Lab:member")
    given = [each for each in Role if each == role.strip()]
    if not given or given[0] is Role.OPERATOR:
        known = ", ".join(each for each in Role if each is not Role.OPERATOR)
        raise ValueError(f"{role.strip()!r} in {text!r} is not one of {known}")
    return Rule(value, organisation, given[0])


def first_match(rules: Sequence[Rule], claim: object) -> Rule | None:
    """The first rule that fits the claim's value or one of its values; ``None`` lets nobody in."""
    values = {claim} if isinstance(claim, str) else set()
    if isinstance(claim, list | tuple):
        values = {each for each in claim if isinstance(each, str)}
    return next((rule for rule in rules if rule.value == ANYBODY or rule.value in values), None)


def subject_of(claims: Mapping[str, Any]) -> str | None:
    """Who it is to the provider; ``None`` where it does not say."""
    subject = claims.get("sub")
    fits = isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT and subject.isprintable()
    return subject if fits else None


def verified_email(claims: Mapping[str, Any], domains: Collection[str]) -> str | None:
    """The e-mail address, in lower case, if the provider says that it verified it and the domain is allowed.

    Args:
        claims: the provider's.
        domains: those allowed; none is any.
    """
    email = claims.get("email")
    if claims.get("email_verified") is not True or not isinstance(email, str):
        return None
    email = email.strip().lower()
    name, at, domain = email.rpartition("@")
    plain = email.isprintable() and not any(each.isspace() for each in email)
    if not (name and at and domain and plain) or "@" in name or len(email) > _MAX_EMAIL:
        return None
    return email if not domains or domain in {each.lower() for each in domains} else None
