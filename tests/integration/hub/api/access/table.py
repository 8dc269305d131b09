"""Who may ask what: a row for every route of the Hub.

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
        body: what is sent.
        good: the statuses of those who may.
    """

    method: str
    path: str
    who: str
    thing: bool = False
    body: dict[str, Any] | None = None
    good: tuple[int, ...] = (200,)
    query: dict[str, str] = field(default_factory=dict)
    hidden_from_operators: bool = False

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


def _sessions(*roles: Role):
    def decide(caller: Caller) -> str:
        if caller.kind != "session":
            return SIGN_IN
        return OK if caller.role in roles else FORBIDDEN

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
}

A = "/admin/v1"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
TRIED = (200, 400, 404, 503)
"""Statuses of requests to models: the node of the test answers one of them only."""
KEY_FORM = {"name": "a", "fleet": "own"}
TOKEN_FORM = {"name": "a", "role": "member", "lifetime": "7"}
NODE_FORM = {"name": "a", "region": "eu"}


def _row(method: str, path: str, who: str, **more: Any) -> Row:
    return Row(method, path, who, **more)


ROWS = [
    # The inference API
    _row("POST", "/v1/chat/completions", "api keys", body=CHAT, good=TRIED),
    _row("POST", "/v1/completions", "api keys", body={"model": "tiny", "prompt": "a"}, good=TRIED),
    _row("POST", "/v1/embeddings", "api keys", body={"model": "tiny", "input": "a"}, good=TRIED),
    _row("POST", "/v1/responses", "api keys", body={"model": "tiny", "input": "a"}, good=TRIED),
    _row("POST", "/v1/messages", "api keys", body={"max_tokens": 1} | CHAT, good=TRIED),
    _row("POST", "/v1/rerank", "api keys", body={"model": "tiny", "query": "a", "documents": []}, good=TRIED),
    _row("GET", "/v1/models", "api keys"),
    _row("GET", "/v1/models/{model:path}", "api keys", good=(200, 404)),
    _row("GET", "/v1/models/{model:path}/warming", "api keys", good=(200, 404)),
    # Machines; what they bring decides, not who they say they are
    _row("GET", "/.well-known/porten", "everybody"),
    _row("GET", "/healthz", "everybody"),
    _row("GET", "/readyz", "everybody"),
    _row("GET", "/metrics", "everybody"),
    _row("GET", "/install.sh", "everybody"),
    _row("POST", "/enroll/v1/device_authorization", "everybody", body={}, good=(400,)),
    _row("POST", "/enroll/v1/token", "everybody", body={}, good=(400,)),
    _row("POST", "/enroll/v1/join", "everybody", body={}, good=(400,)),
    _row("POST", "/enroll/v1/leave", "nodes that sign", body={}),
    _row("POST", "/enroll/v1/rotate", "nodes that sign", body={}),
    # The administrative API
    _row("GET", f"{A}/openapi.json", "everybody"),
    _row("GET", f"{A}/self", "tokens"),
    _row("GET", f"{A}/keys", "tokens"),
    _row("POST", f"{A}/keys", "tokens that change", body={"name": "a"}, good=(201,)),
    _row("GET", f"{A}/keys/{{key_id}}", "tokens", thing=True),
    _row("PATCH", f"{A}/keys/{{key_id}}", "tokens that change", thing=True, body={"name": "b"}),
    _row("POST", f"{A}/keys/{{key_id}}/rotate", "tokens that change", thing=True, body={}),
    _row("GET", f"{A}/keys/{{key_id}}/explain", "tokens", thing=True, query={"model": "tiny"}),
    _row("POST", f"{A}/keys/{{key_id}}/revoke", "tokens that change", thing=True),
    _row("GET", f"{A}/nodes", "tokens"),
    _row("GET", f"{A}/nodes/{{node_id}}", "tokens", thing=True),
    _row("PATCH", f"{A}/nodes/{{node_id}}", "tokens that change", thing=True, body={"name": "b"}),
    _row("GET", f"{A}/nodes/{{node_id}}/jobs", "tokens", thing=True),
    _row(
        "POST",
        f"{A}/nodes/{{node_id}}/jobs",
        "tokens that change",
        thing=True,
        hidden_from_operators=True,
        body={"action": "load", "model": "none"},
        good=(422,),
    ),
    _row("POST", f"{A}/nodes/{{node_id}}/revoke", "tokens that change", thing=True),
    _row("GET", f"{A}/enrollments/{{user_code}}", "tokens"),
    _row("POST", f"{A}/enrollments/{{user_code}}/approve", "tokens that change", body={}, good=(201,)),
    _row("POST", f"{A}/enrollments/{{user_code}}/deny", "tokens that change"),
    _row("GET", f"{A}/join-tokens", "tokens"),
    _row("POST", f"{A}/join-tokens", "tokens that change", body={}, good=(201,)),
    _row("POST", f"{A}/join-tokens/{{token_id}}/revoke", "tokens that change", thing=True),
    _row("GET", f"{A}/regions", "tokens"),
    _row("POST", f"{A}/regions", "operators' tokens", body={"code": "eu", "name": "a"}, good=(409,)),
    _row("GET", f"{A}/organisations", "tokens"),
    _row("POST", f"{A}/organisations", "operators' tokens", body={"name": HOME}, good=(409,)),
    _row("GET", f"{A}/organisations/{{organisation_id}}", "tokens", thing=True),
    _row("PATCH", f"{A}/organisations/{{organisation_id}}", "operators' tokens", body={"limits": {}}),
    _row("GET", f"{A}/models", "tokens"),
    _row("GET", f"{A}/accounts", "tokens that review"),
    _row(
        "POST",
        f"{A}/accounts",
        "tokens that change",
        body={"email": "no address", "password": "correct horse battery"},
        good=(422,),
    ),
    _row("DELETE", f"{A}/accounts/{{account_id}}", "tokens that change", thing=True, good=(204,)),
    _row("GET", f"{A}/tokens", "tokens that review"),
    _row("POST", f"{A}/tokens", "tokens that change", body={"name": "a"}, good=(201,)),
    _row("POST", f"{A}/tokens/{{token_id}}/revoke", "tokens that change", thing=True),
    _row("GET", f"{A}/usage", "tokens"),
    _row("GET", f"{A}/usage.csv", "tokens"),
    _row("GET", f"{A}/audit", "tokens that review"),
    _row("GET", f"{A}/audit/export", "tokens that review"),
    # The portal
    _row("GET", "/login", "everybody", good=(200, 303)),
    _row("POST", "/login", "everybody", body={}, good=(400,)),
    _row("POST", "/logout", "sessions", body={}, good=(303,)),
    _row("GET", "/static/{name}", "everybody"),
    _row("GET", "/", "sessions"),
    _row("GET", "/device", "sessions"),
    _row(
        "POST",
        "/device",
        "sessions that change",
        body={"user_code": "BCDF-GHJK", "action": "deny"},
        good=(404,),
    ),
    _row("GET", "/nodes", "sessions"),
    _row("GET", "/nodes/live", "sessions"),
    _row("GET", "/nodes/{node_id}", "sessions", thing=True),
    _row("POST", "/nodes/{node_id}", "sessions that change", thing=True, body=NODE_FORM, good=(303,)),
    _row("GET", "/nodes/{node_id}/revoke", "sessions that change", thing=True),
    _row("POST", "/nodes/{node_id}/revoke", "sessions that change", thing=True, body={}, good=(303,)),
    _row(
        "POST",
        "/nodes/{node_id}/models",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
        body={"action": "load", "model": "none"},
        good=(400,),
    ),
    _row("GET", "/keys", "sessions"),
    _row("POST", "/keys", "sessions that change", body=KEY_FORM),
    _row("GET", "/keys/preview", "sessions"),
    _row("GET", "/keys/{key_id}", "sessions that change", thing=True, hidden_from_operators=True),
    _row(
        "POST",
        "/keys/{key_id}",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
        body=KEY_FORM,
        good=(303,),
    ),
    _row("GET", "/keys/{key_id}/explain", "sessions", thing=True, hidden_from_operators=True),
    _row("GET", "/keys/{key_id}/rotate", "sessions that change", thing=True, hidden_from_operators=True),
    _row(
        "POST",
        "/keys/{key_id}/rotate",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
        body={"overlap": "now"},
    ),
    _row("GET", "/keys/{key_id}/revoke", "sessions that change", thing=True, hidden_from_operators=True),
    _row(
        "POST",
        "/keys/{key_id}/revoke",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
        body={},
        good=(303,),
    ),
    _row("GET", "/admin-tokens", "sessions that review"),
    _row("POST", "/admin-tokens", "sessions that change", body=TOKEN_FORM),
    _row(
        "GET",
        "/admin-tokens/{token_id}/revoke",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
    ),
    _row(
        "POST",
        "/admin-tokens/{token_id}/revoke",
        "sessions that change",
        thing=True,
        hidden_from_operators=True,
        body={},
        good=(303,),
    ),
    _row("GET", "/usage", "sessions"),
    _row("GET", "/usage.csv", "sessions"),
    _row("GET", "/audit", "sessions that review"),
]
