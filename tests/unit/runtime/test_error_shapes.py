"""An error in the words of each protocol."""

import json

import pytest

from runtime.api_paths import PATHS
from runtime.envelope import ErrorAnswer
from runtime.error_shapes import shape_of

FAILED = ErrorAnswer(502, "engine_error", "upstream_error", "line\nbreak", "input")


@pytest.mark.parametrize("path", sorted(PATHS))
def test_an_error_event_is_one_event(path: str) -> None:
    event = shape_of(path).event(FAILED)
    assert event.count(b"data: {") == 1
    assert event.count(b"\n\n") == 1
    assert event.endswith(b"\n\n")
    json.loads(event.split(b"data: ")[1])


def test_anthropics_clients_find_its_envelope() -> None:
    whole = json.loads(shape_of("/v1/messages").body(FAILED, "req_1"))
    error = {"type": "api_error", "message": "line\nbreak", "code": "engine_error", "param": "input"}
    assert whole == {"type": "error", "error": error, "request_id": "req_1"}
    assert shape_of("/v1/messages").event(FAILED).startswith(b"event: error\ndata: ")


@pytest.mark.parametrize(
    ("status", "expected"), [(400, "invalid_request_error"), (503, "overloaded_error"), (418, "api_error")]
)
def test_the_status_says_anthropics_type(status: int, expected: str) -> None:
    answer = ErrorAnswer(status, "a", "b", "c")
    assert json.loads(shape_of("/v1/messages").body(answer))["error"]["type"] == expected


def test_the_responses_api_has_an_event_of_its_own() -> None:
    said = json.loads(shape_of("/v1/responses").event(FAILED).split(b"data: ")[1])
    assert (said["type"], said["code"], said["message"]) == ("error", "engine_error", "line\nbreak")
    assert said["error"]["type"] == "upstream_error"
