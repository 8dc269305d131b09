"""How roles read on a page, and how a refusal by role becomes one.

Owns their words. Which role may do what is :mod:`hub.permissions`'s.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from hub.errors import NotAllowed as RoleTooLow
from hub.permissions import Role, grantable
from hub.portal.errors import NotAllowed

ROLES: tuple[tuple[Role, str, str], ...] = (
    (Role.OPERATOR, "Operator", "Runs the whole Hub. Made with a command on its machine."),
    (Role.OWNER, "Owner", "Nodes, keys and everybody's membership, owners' too."),
    (Role.ADMIN, "Administrator", "Nodes, keys and membership, but of no owner."),
    (
        Role.MEMBER,
        "Member",
        "Looks at nodes, keys and usage, and asks models in the playground. Changes nothing.",
    ),
    (
        Role.AUDITOR,
        "Auditor",
        "Looks at nodes, keys, usage, members and the audit log. Asks no model, and changes nothing.",
    ),
)


def role_words(role: Role) -> str:
    """Name a role."""
    return next(name for kind, name, _ in ROLES if kind is role)


def role_choices(by: Role) -> list[tuple[Role, str, str]]:
    """The roles that somebody with this role may give, each with its name and what it is."""
    return [each for each in ROLES if each[0] in grantable(by)]


@contextmanager
def check() -> Iterator[None]:
    """Turn a refusal by :mod:`hub.permissions` into a page that says why.

    Raises:
        NotAllowed: it was refused.
    """
    try:
        yield
    except RoleTooLow as error:
        words = str(error)
        raise NotAllowed(f"{words[:1].upper()}{words[1:]}.") from None
