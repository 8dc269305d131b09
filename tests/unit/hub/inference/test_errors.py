"""The error table: on the wire, from nodes, and in the documentation."""

import json
import re
from pathlib import Path

import pytest

from hub.api.openai_errors import ERRORS, envelope, from_upstream, headers, kind_of, sse_event
from hub.errors import RequestFailed

DOCS = Path(__file__).parents[4] / "docs" / "api.md"


def test_an_error_has_openais_envelope_and_our_request_id():
    failure = RequestFailed("invalid_json", "no", param="body")
    assert json.loads(envelope(failure, "req_1")) == {
        "error": {"message": "no", "type": "invalid_request_error", "param": "body", "code": "invalid_json"},
        "request_id": "req_1",
    }
    event = sse_event(failure, "req_1")
    assert event.startswith(b"data: {")
    assert event.endswith(b"}\n\n")
    assert event.count(b"\n") == 2


def test_headers_say_when_to_come_back_and_how_to_sign_in():
    found = dict(headers(RequestFailed("overloaded", "full", retry_after=0.2), b"12"))
    assert (found[b"retry-after"], found[b"content-length"]) == (b"1", b"2")
    assert (b"www-authenticate", b"Bearer") in headers(RequestFailed("invalid_api_key", "no"), b"")


def test_a_code_that_the_table_lacks_is_our_own_fault():
    assert kind_of(RequestFailed("invented", "?")).status == 500


def upstream(status, error, retry_after=None):
    return from_upstream(status, json.dumps({"error": error}).encode(), retry_after)


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [
        (503, {"message": "40 %", "code": "model_warming"}, "model_warming"),
        (503, {"message": "x", "code": "no_available_node"}, "no_available_node"),
        (400, {"message": "too long", "code": "context_length_exceeded"}, "context_length_exceeded"),
        (400, {"message": "bad grammar", "code": 400}, "invalid_request"),
        (404, {"message": "nothing here", "code": "unknown_route"}, "invalid_request"),
        (413, {"message": "big"}, "request_too_large"),
        (429, "slow down", "overloaded"),
        (500, {"message": "assertion failed"}, "engine_error"),
        (503, {"message": "busy", "code": "invalid_api_key"}, "engine_error"),
    ],
)
def test_a_nodes_error_becomes_one_of_ours(status, error, code):
    assert upstream(status, error).code == code


def test_a_refusal_keeps_the_engines_words_and_a_failure_does_not():
    assert upstream(400, {"message": "top_k must be positive", "param": "top_k"}).param == "top_k"
    assert "positive" in upstream(400, {"message": "top_k must be positive"}).message
    assert "/home/owner" not in upstream(500, {"message": "crash in /home/owner"}).message
    assert "/home/owner" not in upstream(503, {"message": "/home/owner", "code": "no_available_node"}).message


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"\xff", b'{"error": 5}', b'{"error": {"message": 5}}']
)
def test_an_error_that_is_none_is_still_answered(body):
    assert from_upstream(500, body, None).code == "engine_error"
    assert from_upstream(400, body, None).code == "invalid_request"


@pytest.mark.parametrize(
    ("text", "seconds"), [("5", 5.0), (None, None), ("soon", None), ("-1", None), ("9" * 99, None)]
)
def test_only_a_number_of_seconds_is_passed_on(text, seconds):
    assert from_upstream(503, b"", text).retry_after == seconds


def test_the_documentation_has_the_same_table():
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)` \| `(\w+)` \|", DOCS.read_text("utf-8"), re.MULTILINE)
    assert {code: (int(status), kind) for status, code, kind in rows} == {
        code: (kind.status, kind.type) for code, kind in ERRORS.items()
    }
