"""Who may open which page of the portal, and post what there: the roles are those of docs/portal.md."""

from tests.integration.hub.api.access.rules import row

OF_HOME = {"thing": True, "hidden_from_operators": True}
"""What not even an operator finds where it is another organisation's: keys, tokens, people."""
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
KEY_FORM = {"name": "a", "fleet": "own"}
TOKEN_FORM = {"name": "a", "role": "member", "lifetime": "7"}
NODE_FORM = {"name": "a", "region": "eu"}
JOB = {"action": "load", "model": "none"}
MANAGERS, OPERATORS = "sessions that change", "operators' sessions"

SIGNING_IN = [
    row("GET", "/login", "everybody", good=(200, 303)),
    row("POST", "/login", "everybody", own=True, good=(303,)),
    row("GET", "/login/code", "everybody"),
    row("POST", "/login/code", "everybody", own=True, good=(303,)),
    row("GET", "/login/single-sign-on", "everybody", good=(303,)),
    row("GET", "/login/single-sign-on/callback", "everybody", own=True, good=(303,)),
    row("GET", "/invitation/{token}", "everybody"),
    row("POST", "/invitation/{token}", "everybody", own=True, good=(303,)),
    row("POST", "/logout", "sessions", own=True, body={}, good=(303,)),
]

ACCOUNT = [
    row("GET", "/account", "sessions"),
    row("POST", "/account/password", "sessions", own=True, good=(303,)),
    row("POST", "/account/sessions/{reference}/end", "sessions", own=True, body={}, good=(303,)),
    row("POST", "/account/sessions/end-others", "sessions", own=True, body={}, good=(303,)),
    row("GET", "/account/second-step", "sessions"),
    row("POST", "/account/second-step", "sessions", own=True),
    row("POST", "/account/second-step/confirm", "sessions", own=True),
    row("POST", "/account/second-step/codes", "sessions", own=True),
    row("POST", "/account/second-step/off", "sessions", own=True, good=(303,)),
    row("POST", "/account/single-sign-on", "sessions", own=True),
    row("POST", "/account/single-sign-on/disconnect", "sessions", own=True, good=(303,)),
]

NODES = [
    row("GET", "/device", "sessions"),
    row("POST", "/device", MANAGERS, body={"action": "approve", "name": "a", "sharing": "private"}),
    row("GET", "/nodes", "sessions"),
    row("GET", "/nodes/live", "sessions"),
    row("GET", "/nodes/{node_id}", "sessions", thing=True),
    row("POST", "/nodes/{node_id}", MANAGERS, thing=True, body=NODE_FORM, good=(303,)),
    row("POST", "/nodes/{node_id}/drain", MANAGERS, thing=True, body={}, good=(303,)),
    row("POST", "/nodes/{node_id}/resume", MANAGERS, thing=True, body={}, good=(303,)),
    row("GET", "/nodes/{node_id}/revoke", MANAGERS, thing=True),
    row("POST", "/nodes/{node_id}/revoke", MANAGERS, thing=True, body={}, good=(303,)),
    row("POST", "/nodes/{node_id}/models", MANAGERS, **OF_HOME, body=JOB, good=(400,)),
    row("GET", "/models", "sessions"),
    row("GET", "/models/{model:path}", "sessions"),
]

KEYS = [
    row("GET", "/keys", "sessions"),
    row("POST", "/keys", MANAGERS, body=KEY_FORM),
    row("GET", "/keys/preview", "sessions"),
    row("GET", "/keys/{key_id}", MANAGERS, **OF_HOME),
    row("POST", "/keys/{key_id}", MANAGERS, **OF_HOME, body=KEY_FORM, good=(303,)),
    row("GET", "/keys/{key_id}/explain", "sessions", **OF_HOME),
    row("GET", "/keys/{key_id}/rotate", MANAGERS, **OF_HOME),
    row("POST", "/keys/{key_id}/rotate", MANAGERS, **OF_HOME, body={"overlap": "now"}),
    row("GET", "/keys/{key_id}/revoke", MANAGERS, **OF_HOME),
    row("POST", "/keys/{key_id}/revoke", MANAGERS, **OF_HOME, body={}, good=(303,)),
    row("GET", "/playground", "sessions that ask"),
    row("GET", "/playground/{key_id}/models", "sessions that ask", **OF_HOME),
    row("GET", "/playground/{key_id}/warming", "sessions that ask", **OF_HOME, query={"model": "tiny"}),
    row("POST", "/playground/{key_id}/chat", "sessions that ask", **OF_HOME, script=True, body=CHAT),
    row("POST", "/playground/verdict", "sessions that ask", body={"receipt": "none"}),
    row("GET", "/admin-tokens", "sessions that review"),
    row("POST", "/admin-tokens", MANAGERS, body=TOKEN_FORM),
    row("GET", "/admin-tokens/{token_id}/revoke", MANAGERS, **OF_HOME),
    row("POST", "/admin-tokens/{token_id}/revoke", MANAGERS, **OF_HOME, body={}, good=(303,)),
]

MEMBERS = [
    row("GET", "/members", "sessions that review"),
    row("POST", "/members", MANAGERS, body={"name": "a", "role": "member"}),
    row("POST", "/members/invitations/{invitation_id}/withdraw", MANAGERS, **OF_HOME, body={}, good=(303,)),
    row("GET", "/members/{account_id}", MANAGERS, **OF_HOME),
    row("POST", "/members/{account_id}", MANAGERS, **OF_HOME, body={"role": "auditor"}, good=(303,)),
    row("POST", "/members/{account_id}/sign-out", MANAGERS, **OF_HOME, body={}, good=(303,)),
    row("POST", "/members/{account_id}/reset-second-step", MANAGERS, **OF_HOME, body={}, good=(303,)),
    row("GET", "/members/{account_id}/remove", MANAGERS, **OF_HOME),
    row("POST", "/members/{account_id}/remove", MANAGERS, **OF_HOME, body={}, good=(303,)),
]

THE_HUB = [
    row("GET", "/organisations", OPERATORS),
    row("POST", "/organisations", OPERATORS, good=(303,)),
    row("GET", "/organisations/{organisation_id}", OPERATORS),
    row("POST", "/organisations/{organisation_id}", OPERATORS, good=(303,)),
    row("GET", "/regions", OPERATORS),
    row("POST", "/regions", OPERATORS, good=(303,)),
    row("GET", "/regions/{code}", OPERATORS),
    row("POST", "/regions/{code}", OPERATORS, body={"name": "b"}, good=(303,)),
    row("GET", "/regions/{code}/remove", OPERATORS),
    row("POST", "/regions/{code}/remove", OPERATORS, body={}, good=(303,)),
    row("GET", "/nodes/{node_id}/region", OPERATORS),
    row("POST", "/nodes/{node_id}/region", OPERATORS, body={"region": "eu"}, good=(303,)),
    row("GET", "/trust", OPERATORS),
    row("GET", "/trust/{node_id}", OPERATORS),
    row("POST", "/trust/{node_id}", OPERATORS, body={"trust": "verified", "reason": "a"}, good=(303,)),
]

PORTAL = [
    row("GET", "/static/{name}", "everybody"),
    row("GET", "/", "sessions"),
    row("GET", "/usage", "sessions"),
    row("GET", "/usage.csv", "sessions"),
    row("GET", "/audit", "sessions that review"),
    *(*SIGNING_IN, *ACCOUNT, *NODES, *KEYS, *MEMBERS, *THE_HUB),
]
