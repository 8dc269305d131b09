"""The OpenAPI document of the administrative API and of enrollment.

Owns what the framework does not know by itself: who is let in, every refusal with an example, the
`Idempotency-Key` of writes, and the enrollment endpoints, which no framework describes.
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from hub.api.admin.enrollment_document import SCHEMES as ENROLLMENT_SCHEMES
from hub.api.admin.enrollment_document import paths as enrollment_paths
from hub.api.admin.enrollment_document import schemas as enrollment_schemas
from hub.api.admin.errors import ADMIN_ERRORS, error_body
from hub.api.admin.route import REPEATED
from hub.errors import RequestFailed
from tunnel.version import __version__

_ALWAYS = (400, 401, 403, 404, 422, 429, 500, 503)
_WRITING = (409, 413, 415)
_UNASKED = {"unknown_url", "method_not_allowed"}  # of addresses that the document does not have
_FRAMEWORKS_OWN = ("HTTPValidationError", "ValidationError")
_ABOUT = """What the portal can do, for programs; invitations and the playground are for people.
Ask with an admin token: `Authorization: Bearer padm-…`; `porten-hub admin-tokens create` makes one. What
belongs to another organisation is not found. Every write may carry an `Idempotency-Key`."""

Document = dict[str, Any]


def described(router: APIRouter) -> Document:
    """The document of a router's routes, and of enrollment."""
    document = get_openapi(
        title="Porten Hub: administration and enrollment",
        version=__version__,
        description=_ABOUT,
        routes=router.routes,
    )
    for method, operation in _operations(document):
        _complete(method, operation)
    components = document["components"]
    for name in _FRAMEWORKS_OWN:
        components["schemas"].pop(name, None)
    components["schemas"] |= {"Error": _ERROR} | enrollment_schemas()
    components["responses"] = {
        f"Refused{status}": _refusal(status) for status in sorted({*_ALWAYS, *_WRITING})
    }
    components["parameters"] = {"IdempotencyKey": _IDEMPOTENCY_KEY}
    components["securitySchemes"] = {"adminToken": _ADMIN_TOKEN} | ENROLLMENT_SCHEMES
    document["paths"] |= enrollment_paths()
    return document


def _operations(document: Document) -> Iterator[tuple[str, Document]]:
    for operations in document["paths"].values():
        yield from operations.items()


def _complete(method: str, operation: Document) -> None:
    """Add to an operation what all of them have in common."""
    responses = operation["responses"]
    for status in _ALWAYS if method == "get" else (*_ALWAYS, *_WRITING):
        responses[str(status)] = {"$ref": f"#/components/responses/Refused{status}"}
    operation["security"] = [{"adminToken": []}]
    if method != "get":
        reference = {"$ref": "#/components/parameters/IdempotencyKey"}
        operation["parameters"] = [*operation.get("parameters", []), reference]
        for status, response in responses.items():
            if status.startswith("2"):
                response["headers"] = {REPEATED: _REPEATED}


def _refusal(status: int) -> Document:
    codes = [code for code, kind in ADMIN_ERRORS.items() if kind.status == status and code not in _UNASKED]
    examples = {code: {"value": _example(code)} for code in codes}
    told: Document = {
        "description": " or ".join(f"`{code}`" for code in codes),
        "content": {
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Error"},
                "examples": examples,
            }
        },
    }
    if status in (429, 503):
        told["headers"] = {"retry-after": {"description": "Seconds.", "schema": {"type": "string"}}}
    return told


def _example(code: str) -> Document:
    said = RequestFailed(code, "One or two sentences that say what to do.")
    found: Document = msgspec.json.decode(error_body(said, "req_kq3m5x7zt2vw4y6abcde"))
    return found


_ERROR: Document = {
    "title": "Error",
    "type": "object",
    "additionalProperties": False,
    "required": ["error", "request_id"],
    "properties": {
        "error": {
            "type": "object",
            "additionalProperties": False,
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": sorted({kind.type for kind in ADMIN_ERRORS.values()})},
                "param": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                "code": {"enum": sorted(ADMIN_ERRORS)},
            },
        },
        "request_id": {"type": "string"},
    },
}
_ADMIN_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "An admin token, padm-…; API keys are not taken here, nor admin tokens elsewhere.",
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Drawn by the client for one act, such as a UUID. The same request with it again, within "
    "24 hours, does nothing and gets the same answer.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,255}$"},
    "example": "8e03978e-40d5-43dd-bc93-6894a57f9324",
}
_REPEATED = {
    "description": "`true` where this is the answer that was given before.",
    "schema": {"enum": ["true"]},
}
