"""Who may ask what: a row for every route of the Hub.

What is said here is said apart from the code that it is held against. The portal's rows are in
`portal_rows`; what a row means, and who asks, in `rules`.
"""

from tests.integration.hub.api.access.portal_rows import PORTAL
from tests.integration.hub.api.access.rules import row

__all__ = ["API", "PORTAL", "ROWS"]

A = "/admin/v1"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
NOT_HERE = (400,)
"""The status for what the test's one node does not do: it chats."""

API = [
    # The inference API
    row("POST", "/v1/chat/completions", "api keys", body=CHAT),
    row("POST", "/v1/completions", "api keys", body={"model": "tiny", "prompt": "a"}),
    row("POST", "/v1/embeddings", "api keys", body={"model": "tiny", "input": "a"}, good=NOT_HERE),
    row("POST", "/v1/responses", "api keys", body={"model": "tiny", "input": "a"}, good=NOT_HERE),
    row("POST", "/v1/messages", "api keys", body={"max_tokens": 1} | CHAT, good=NOT_HERE),
    row(
        "POST", "/v1/rerank", "api keys", body={"model": "tiny", "query": "a", "documents": []}, good=NOT_HERE
    ),
    row("GET", "/v1/models", "api keys"),
    row("GET", "/v1/models/{model:path}", "api keys"),
    row("GET", "/v1/models/{model:path}/warming", "api keys"),
    # Machines; what they bring decides, not who they say they are
    row("GET", "/.well-known/porten", "everybody"),
    row("GET", "/healthz", "everybody"),
    row("GET", "/readyz", "everybody"),
    row("GET", "/metrics", "everybody"),
    row("GET", "/install.sh", "everybody"),
    row("GET", "/install/program", "everybody"),
    row("GET", "/install/{file}", "everybody"),
    row("POST", "/enroll/v1/device_authorization", "everybody", body={}, good=(400,)),
    row("POST", "/enroll/v1/token", "everybody", body={}, good=(400,)),
    row("POST", "/enroll/v1/join", "everybody", body={}, good=(400,)),
    row("POST", "/enroll/v1/leave", "nodes that sign", body={}),
    row("POST", "/enroll/v1/rotate", "nodes that sign", body={}),
    # The administrative API
    row("GET", f"{A}/openapi.json", "everybody"),
    row("GET", f"{A}/self", "tokens"),
    row("GET", f"{A}/keys", "tokens"),
    row("POST", f"{A}/keys", "tokens that change", body={"name": "a"}, good=(201,)),
    row("GET", f"{A}/keys/{{key_id}}", "tokens", thing=True),
    row("PATCH", f"{A}/keys/{{key_id}}", "tokens that change", thing=True, body={"name": "b"}),
    row("POST", f"{A}/keys/{{key_id}}/rotate", "tokens that change", thing=True, body={}),
    row("GET", f"{A}/keys/{{key_id}}/explain", "tokens", thing=True, query={"model": "tiny"}),
    row("POST", f"{A}/keys/{{key_id}}/revoke", "tokens that change", thing=True),
    row("GET", f"{A}/nodes", "tokens"),
    row("GET", f"{A}/nodes/{{node_id}}", "tokens", thing=True),
    row("PATCH", f"{A}/nodes/{{node_id}}", "tokens that change", thing=True, body={"name": "b"}),
    row("GET", f"{A}/nodes/{{node_id}}/jobs", "tokens", thing=True),
    row(
        "POST",
        f"{A}/nodes/{{node_id}}/jobs",
        "tokens that change",
        thing=True,
        hidden_from_operators=True,
        body={"action": "load", "model": "none"},
        good=(422,),
    ),
    row("POST", f"{A}/nodes/{{node_id}}/drain", "tokens that change", thing=True),
    row("POST", f"{A}/nodes/{{node_id}}/resume", "tokens that change", thing=True),
    row("POST", f"{A}/nodes/{{node_id}}/revoke", "tokens that change", thing=True),
    row("GET", f"{A}/enrollments/{{user_code}}", "tokens"),
    row("POST", f"{A}/enrollments/{{user_code}}/approve", "tokens that change", body={}, good=(201,)),
    row("POST", f"{A}/enrollments/{{user_code}}/deny", "tokens that change"),
    row("GET", f"{A}/join-tokens", "tokens"),
    row("POST", f"{A}/join-tokens", "tokens that change", body={}, good=(201,)),
    row("POST", f"{A}/join-tokens/{{token_id}}/revoke", "tokens that change", thing=True),
    row("GET", f"{A}/regions", "tokens"),
    row("POST", f"{A}/regions", "operators' tokens", good=(201,)),
    row("PATCH", f"{A}/regions/{{code}}", "operators' tokens", body={"name": "b"}),
    row("DELETE", f"{A}/regions/{{code}}", "operators' tokens", good=(204,)),
    row("GET", f"{A}/organisations", "tokens"),
    row("POST", f"{A}/organisations", "operators' tokens", good=(201,)),
    row("GET", f"{A}/organisations/{{organisation_id}}", "tokens", thing=True),
    row("PATCH", f"{A}/organisations/{{organisation_id}}", "operators' tokens", body={"limits": {}}),
    row("GET", f"{A}/models", "tokens"),
    row("GET", f"{A}/accounts", "tokens that review"),
    row("POST", f"{A}/accounts", "tokens that change", good=(201,)),
    row("PATCH", f"{A}/accounts/{{account_id}}", "tokens that change", thing=True, body={"role": "auditor"}),
    row("POST", f"{A}/accounts/{{account_id}}/sign-out", "tokens that change", thing=True),
    row("POST", f"{A}/accounts/{{account_id}}/reset-second-step", "tokens that change", thing=True),
    row("DELETE", f"{A}/accounts/{{account_id}}", "tokens that change", thing=True, good=(204,)),
    row("GET", f"{A}/tokens", "tokens that review"),
    row("POST", f"{A}/tokens", "tokens that change", body={"name": "a"}, good=(201,)),
    row("POST", f"{A}/tokens/{{token_id}}/revoke", "tokens that change", thing=True),
    row("GET", f"{A}/usage", "tokens"),
    row("GET", f"{A}/usage.csv", "tokens"),
    row("GET", f"{A}/audit", "tokens that review"),
    row("GET", f"{A}/audit/export", "tokens that review"),
]
ROWS = [*API, *PORTAL]
