"""What each role may do, and who may change whose role: one table that everything asks.

Owns the roles, the acts, and the rules about people. Pure: portal, admin API and storage ask it, and storage
asks it inside the transaction that changes something. Must not know accounts, pages or the database.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from hub.errors import NotAllowed


class Role(StrEnum):
    """What an account may do. ``operator`` is of the Hub; the others are of their organisation."""

    OPERATOR = "operator"
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    AUDITOR = "auditor"

    @property
    def may_manage(self) -> bool:
        """Approve, change and revoke nodes, create and revoke keys. The others look."""
        return may(self, Act.CHANGE_NODES) and may(self, Act.CHANGE_KEYS)

    @property
    def may_audit(self) -> bool:
        """Read the audit log. Members see what is, not who did it."""
        return may(self, Act.READ_AUDIT)

    @property
    def may_ask(self) -> bool:
        """Ask models in the portal, under a key of the organisation. Auditors read, and use nothing."""
        return may(self, Act.ASK)

    def may_grant(self, role: Role) -> bool:
        """Make an admin token of this role, or end one: none that may more than the maker."""
        return may(self, Act.CHANGE_MEMBERS) and _RANK[role] <= _RANK[self]


class Act(StrEnum):
    """Something that not everybody may do, in the words of docs/portal.md."""

    LOOK = "look at the organisation's nodes, keys and usage"
    READ_AUDIT = "read the organisation's audit log"
    ASK = "ask models in the playground, under the organisation's keys"
    SEE_MEMBERS = "see who is a member, with which role"
    APPROVE_NODES = "approve and refuse machines"
    CHANGE_NODES = "change, drain and revoke nodes"
    CHANGE_KEYS = "create, change, rotate and revoke keys"
    CHANGE_MEMBERS = "invite, change, sign out and remove members"
    SET_TRUST = "set a node's trust class"
    CONFIRM_REGIONS = "confirm a node's region, by saving it or where it waits"
    ALL_NODES = "see and change every organisation's nodes"
    ALL_AUDIT = "read the whole audit log"
    CHANGE_ORGANISATIONS = "see all organisations, make and rename one, set its ceiling"
    CHANGE_REGIONS = "add, rename, move and remove regions"


_EVERYBODY = frozenset(Role)
_MANAGERS = frozenset({Role.OPERATOR, Role.OWNER, Role.ADMIN})
_OPERATORS = frozenset({Role.OPERATOR})

MAY: Mapping[Act, frozenset[Role]] = MappingProxyType(
    {
        Act.LOOK: _EVERYBODY,
        Act.READ_AUDIT: _EVERYBODY - {Role.MEMBER},
        Act.ASK: _EVERYBODY - {Role.AUDITOR},
        Act.SEE_MEMBERS: _EVERYBODY - {Role.MEMBER},
        Act.APPROVE_NODES: _MANAGERS,
        Act.CHANGE_NODES: _MANAGERS,
        Act.CHANGE_KEYS: _MANAGERS,
        Act.CHANGE_MEMBERS: _MANAGERS,
        Act.SET_TRUST: _OPERATORS,
        Act.CONFIRM_REGIONS: _OPERATORS,
        Act.ALL_NODES: _OPERATORS,
        Act.ALL_AUDIT: _OPERATORS,
        Act.CHANGE_ORGANISATIONS: _OPERATORS,
        Act.CHANGE_REGIONS: _OPERATORS,
    }
)
"""Which roles may do what; an act that is missing here may be done by nobody."""

_RANK = {Role.OPERATOR: 3, Role.OWNER: 2, Role.ADMIN: 1, Role.MEMBER: 0, Role.AUDITOR: 0}
_ONLY_OPERATOR = "it is the Hub's only operator: make another one first"
_ONLY_OWNER = "it is the organisation's only owner: make another one first"
_BY_COMMAND = "operators are made and unmade by `porten-hub accounts role` on the Hub's machine"


def may(role: Role, act: Act) -> bool:
    """Whether somebody with this role may do it."""
    return role in MAY.get(act, frozenset())


def grantable(by: Role) -> tuple[Role, ...]:
    """The roles that somebody with this role may give to others: none above their own, and never operator."""
    if not may(by, Act.CHANGE_MEMBERS):
        return ()
    return tuple(role for role in Role if role is not Role.OPERATOR and _RANK[role] <= _RANK[by])


def check_grant(by: Role, to: Role) -> None:
    """Whether somebody may give a role.

    Raises:
        NotAllowed: they may not.
    """
    if to is Role.OPERATOR:
        raise NotAllowed(_BY_COMMAND)
    if to not in grantable(by):
        raise NotAllowed(f"somebody who is {by} cannot make anybody {to}")


def check_token_grant(by: Role, to: Role) -> None:
    """Whether somebody may make an admin token of a role.

    Raises:
        NotAllowed: they may not.
    """
    if not by.may_grant(to):
        raise NotAllowed(f"the role {by} makes no admin token of the role {to}")


def check_reach(by: Role, of: Role) -> None:
    """Whether somebody may act on another's account: sign it out, reset its second step, change or remove it.

    Raises:
        NotAllowed: they may not.
    """
    if not may(by, Act.CHANGE_MEMBERS):
        raise NotAllowed(f"somebody who is {by} cannot change other people's accounts")
    if _RANK[of] > _RANK[by]:
        raise NotAllowed(f"somebody who is {by} cannot change the account of somebody who is {of}")


def check_change(by: Role | None, of: Role, to: Role | None, *, others: int) -> None:
    """Whether a role may be changed, or an account removed.

    Args:
        by: the role of whoever does it; ``None`` for a command on the Hub's machine, which may do anything
            that leaves nobody without a head.
        of: the role the account has.
        to: the role it is to have; ``None`` to remove it.
        others: how many other accounts have the role ``of``: in the organisation, for an operator on the Hub.

    Raises:
        NotAllowed: not by them, or nobody would be left who can put it right.
    """
    if by is not None:
        check_reach(by, of)
        if of is Role.OPERATOR:
            raise NotAllowed(_BY_COMMAND)
        if to is not None:
            check_grant(by, to)
    if of is not to and not others:
        if of is Role.OPERATOR:
            raise NotAllowed(_ONLY_OPERATOR)
        if of is Role.OWNER:
            raise NotAllowed(_ONLY_OWNER)
