"""The enrollment endpoints as OpenAPI describes them.

Owns their words and answers there. What they take is what `hub.api.enroll` reads by.
"""

from typing import Any

import msgspec

from hub.api.enroll import DEVICE_GRANT, DeviceAuthorization, Join

Document = dict[str, Any]

_PREFIX = "Enrollment"  # the administrative API has things of the same names
_TEXT = {"type": "string"}
SCHEMES: Document = {
    "nodeSignature": {
        "type": "http",
        "scheme": "bearer",
        "description": "A compact JWS that the node signs with its own key.",
    }
}


def schemas() -> Document:
    """What is read and answered."""
    _, found = msgspec.json.schema_components(
        [DeviceAuthorization, Join], ref_template=f"#/components/schemas/{_PREFIX}{{name}}"
    )
    named = {f"{_PREFIX}{name}": schema for name, schema in found.items()}
    return named | {f"{_PREFIX}{name}": schema for name, schema in _ANSWERS.items()}


def paths() -> Document:
    """The endpoints."""
    return {
        "/enroll/v1/device_authorization": _post(
            "device_authorization",
            "Let a machine ask for a code that somebody approves (RFC 8628).",
            body=_json_body("DeviceAuthorization"),
            answers={"200": _answer("Grant", "Show the code to whoever stands by.")},
            refusals=("400", "413", "429"),
        ),
        "/enroll/v1/token": _post(
            "token",
            "Ask whether somebody decided (RFC 8628, section 3.4).",
            body=_form_body(),
            answers={"200": _answer("Enrolled", "The machine is a node.")},
            refusals=("400", "413", "429"),
        ),
        "/enroll/v1/join": _post(
            "join",
            "Enroll a machine that brings a join token.",
            body=_json_body("Join"),
            answers={"200": _answer("Enrolled", "The machine is a node.")},
            refusals=("400", "401", "413", "429"),
        ),
        "/enroll/v1/leave": _signed("leave", "End the node that signed this."),
        "/enroll/v1/rotate": _signed("rotate", "Announce the key that the node goes over to."),
    }


def _signed(name: str, words: str) -> Document:
    found = _post(name, words, answers={"204": {"description": "Done."}}, refusals=("400", "401", "429"))
    found["post"]["security"] = [{"nodeSignature": []}]
    return found


def _post(
    name: str, words: str, *, answers: Document, refusals: tuple[str, ...], body: Document | None = None
) -> Document:
    operation: Document = {
        "tags": ["machines"],
        "operationId": f"enroll_{name}",
        "summary": words,
        "security": [],
        "responses": answers | {status: _answer("Refusal", "It was refused.") for status in refusals},
    }
    if body is not None:
        operation["requestBody"] = body
    return {"post": operation}


def _answer(name: str, words: str) -> Document:
    schema = {"$ref": f"#/components/schemas/{_PREFIX}{name}"}
    return {"description": words, "content": {"application/json": {"schema": schema}}}


def _json_body(name: str) -> Document:
    schema = {"$ref": f"#/components/schemas/{_PREFIX}{name}"}
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _form_body() -> Document:
    schema = {
        "type": "object",
        "required": ["grant_type", "device_code"],
        "properties": {"grant_type": {"const": DEVICE_GRANT}, "device_code": _TEXT},
    }
    return {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": schema}}}


def _object(**properties: Document) -> Document:
    return {"type": "object", "required": sorted(properties), "properties": properties}


_ANSWERS: Document = {
    "Grant": _object(
        device_code=_TEXT,
        user_code=_TEXT,
        verification_uri=_TEXT,
        verification_uri_complete=_TEXT,
        expires_in={"type": "integer"},
        interval={"type": "integer"},
    ),
    "Enrolled": _object(node_id=_TEXT, name=_TEXT, credential=_TEXT, hub={"type": "object"}),
    "Refusal": _object(error=_TEXT, error_description=_TEXT),
}
