"""Who asks, what a row of the table of access says, and what each caller then gets.

Callers are columns, in groups: nobody, an API key, admin tokens and portal sessions of every role, both of
the organisation whose things are asked for and of another one. The operator belongs to a third.
"""

from dataclasses import dataclass, field
from typing import Any

from hub.storage.records import Role

HOME, ELSEWHERE, OPERATORS = "Acme", "Eve", "Porten"
ROLES = [Role.OPERATOR, Role.OWNER, Role.ADMIN, Role.MEMBER, Role.AUDITOR]


@dataclass(frozen=True)
class Caller:
    """Somebody who asks; ``kind`` is what they show."""

    kind: str
    role: Role | None = None
    organisation: str = HOME

    def __str__(self) -> str:
        return " ".join(filter(None, [self.kind, self.role, self.organisation if self.role else ""]))


def _people(kind: str) -> list[Caller]:
    homes = {Role.OPERATOR: OPERATORS}
    return [Caller(kind, role, homes.get(role, HOME)) for role in ROLES] + [
        Caller(kind, Role.OWNER, ELSEWHERE)
    ]


CALLERS = [Caller("nobody"), Caller("api key"), *_people("token"), *_people("session")]

OK, UNKNOWN, FORBIDDEN, ABSENT, SIGN_IN = "ok", "unknown", "forbidden", "absent", "sign in"


@dataclass(frozen=True)
class Row:
    """One route and who may use it.

    Attributes:
        method: the method.
        path: as the router has it.
        who: decides for a caller.
        thing: the route is about one thing of the home organisation, which others do not find.
        body: what is sent, besides what is made for the request.
        good: the statuses of those who may.
        query: what the address asks for.
        hidden_from_operators: not even an operator finds another organisation's.
        own: it is asked by somebody made for this one request, whom it changes or signs out.
        script: a page's script posts it, as JSON.
    """

    method: str
    path: str
    who: str
    thing: bool = False
    body: dict[str, Any] | None = None
    good: tuple[int, ...] = (200,)
    query: dict[str, str] = field(default_factory=dict)
    hidden_from_operators: bool = False
    own: bool = False
    script: bool = False

    @property
    def is_page(self) -> bool:
        """It is the portal's, which takes forms."""
        return not self.path.startswith(("/v1/", "/admin/", "/enroll/"))

    def expects(self, caller: Caller) -> str:
        """What a caller gets."""
        outcome = _RULES[self.who](caller)
        if outcome != OK or not self.thing or caller.role is None:
            return outcome
        if caller.role is Role.OPERATOR:
            return ABSENT if self.hidden_from_operators else OK
        return OK if caller.organisation == HOME else ABSENT


def _everybody(_caller: Caller) -> str:
    return OK


def _api_keys(caller: Caller) -> str:
    return OK if caller.kind == "api key" else UNKNOWN


def _nodes(_caller: Caller) -> str:
    return UNKNOWN


def _tokens(*roles: Role):
    def decide(caller: Caller) -> str:
        if caller.kind != "token":
            return UNKNOWN
        return OK if caller.role in roles else FORBIDDEN

    return decide


def _sessions(*roles: Role, others: str = FORBIDDEN):
    def decide(caller: Caller) -> str:
        if caller.kind != "session":
            return SIGN_IN
        return OK if caller.role in roles else others

    return decide


CHANGERS = (Role.OPERATOR, Role.OWNER, Role.ADMIN)
REVIEWERS = (*CHANGERS, Role.AUDITOR)
_RULES = {
    "everybody": _everybody,
    "api keys": _api_keys,
    "nodes that sign": _nodes,
    "tokens": _tokens(*ROLES),
    "tokens that change": _tokens(*CHANGERS),
    "tokens that review": _tokens(*REVIEWERS),
    "operators' tokens": _tokens(Role.OPERATOR),
    "sessions": _sessions(*ROLES),
    "sessions that change": _sessions(*CHANGERS),
    "sessions that review": _sessions(*REVIEWERS),
    "sessions that ask": _sessions(*CHANGERS, Role.MEMBER),
    "operators' sessions": _sessions(Role.OPERATOR, others=ABSENT),
}


def row(method: str, path: str, who: str, **more: Any) -> Row:
    """One route and who may use it."""
    return Row(method, path, who, **more)
