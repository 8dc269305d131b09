"""What each protocol has of its own: where its key is, what it may ask, how it is told of errors."""

import json

import msgspec
import pytest

from hub.api.inference import ENDPOINTS
from hub.api.openai_errors import ERRORS
from hub.api.pictures import MOST_BYTES, has_pictures
from hub.api.protocols import protocol_of
from hub.api.request import Headers
from hub.errors import RequestFailed

CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"
FAILED = RequestFailed("node_lost", "The node was lost.", param="p")


def refused(work, *args):
    with pytest.raises(RequestFailed) as caught:
        work(*args)
    return caught.value


def body(path, **said):
    turns = {"messages": []} if path == MESSAGES else {}
    return json.dumps({"model": "m", **turns, **said}).encode()


def headers(**given):
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()])


def test_only_anthropics_clients_have_a_header_of_their_own():
    key = headers(x_api_key="sk-porten-a")
    assert protocol_of(MESSAGES).authorization(key) == "Bearer sk-porten-a"
    for path in set(ENDPOINTS) - {MESSAGES}:
        assert protocol_of(path).authorization(key) is None
    both = headers(x_api_key="sk-porten-a", authorization="Bearer sk-porten-a")
    assert protocol_of(MESSAGES).authorization(both) == "Bearer sk-porten-a"
    bearer = headers(authorization="Bearer sk-porten-a")
    assert protocol_of(MESSAGES).authorization(bearer) == "Bearer sk-porten-a"


def test_two_keys_are_none():
    read = protocol_of(MESSAGES).authorization
    different = headers(x_api_key="sk-porten-a", authorization="Bearer sk-porten-b")
    twice = Headers([(b"x-api-key", b"a"), (b"x-api-key", b"a")])
    for given in (different, twice):
        failure = refused(read, given)
        assert (failure.code, failure.param) == ("invalid_value", "x-api-key")
        assert "sk-porten" not in failure.message


@pytest.mark.parametrize(
    ("path", "said", "param"),
    [
        (RESPONSES, {"previous_response_id": "resp_1"}, "previous_response_id"),
        (RESPONSES, {"conversation": "conv_1"}, "conversation"),
        (RESPONSES, {"background": True}, "background"),
        (RESPONSES, {"store": True}, "store"),
        (RESPONSES, {"prompt": {"id": "pmpt_1"}}, "prompt"),
        (RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://elsewhere"}]}, "tools"),
        (RESPONSES, {"tools": [{"type": "function"}, {"type": "file_search"}]}, "tools"),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://elsewhere"}]}, "mcp_servers"),
        (MESSAGES, {"container": "c"}, "container"),
        (MESSAGES, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
    ],
)
def test_what_would_be_stored_or_asked_elsewhere_is_refused(path, said, param):
    failure = refused(protocol_of(path).peek, body(path, **said))
    assert (failure.code, failure.param) == ("unsupported_parameter", param)
    assert "elsewhere" not in failure.message


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (RESPONSES, {"store": False, "background": None, "previous_response_id": None, "conversation": None}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}]}),
        (RESPONSES, {"tools": "x"}),
        (MESSAGES, {"tools": [{"name": "f"}], "mcp_servers": [], "store": True}),
        (CHAT, {"store": True, "mcp_servers": ["x"]}),
    ],
)
def test_the_rest_is_the_engines_to_judge(path, said):
    assert protocol_of(path).peek(body(path, **said)).model == "m"


@pytest.mark.parametrize(
    ("said", "code"), [({}, "missing_required_parameter"), ({"messages": 17}, "invalid_type")]
)
def test_a_message_has_turns(said, code):
    failure = refused(protocol_of(MESSAGES).peek, json.dumps({"model": "m", **said}).encode())
    assert (failure.code, failure.param) == (code, "messages")


def test_the_most_that_a_response_may_say_is_known():
    asked = protocol_of(RESPONSES).peek(b'{"model":"m","max_output_tokens":9}')
    assert asked.max_completion_tokens == 9
    wrong = refused(protocol_of(RESPONSES).peek, b'{"model":"m","max_output_tokens":"9"}')
    assert (wrong.code, wrong.param) == ("invalid_type", "max_output_tokens")


@pytest.mark.parametrize("path", sorted(ENDPOINTS))
def test_a_stream_that_fails_ends_with_one_event(path):
    event = protocol_of(path).event(FAILED, "req_1")
    assert event.count(b"data: {") == event.count(b"\n\n") == 1
    said = json.loads(event.split(b"data: ")[1])
    assert said["error"]["code"] == "node_lost"
    assert said["request_id"] == "req_1"


def test_anthropics_envelope():
    said = json.loads(protocol_of(MESSAGES).envelope(FAILED, "req_1"))
    error = {"type": "api_error", "message": "The node was lost.", "code": "node_lost", "param": "p"}
    assert said == {"type": "error", "error": error, "request_id": "req_1"}


def test_every_code_has_a_type_that_anthropics_clients_know():
    known = {
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "overloaded_error",
        "timeout_error",
    }
    for code in ERRORS:
        said = msgspec.json.decode(protocol_of(MESSAGES).envelope(RequestFailed(code, "x"), "r"))
        assert said["error"]["type"] in known


PICTURE = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    "said",
    [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PICTURE}}]}]},
        {"messages": [{"content": "x"}, {"content": [{"type": "text"}, {"type": "image", "source": {}}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}]},
    ],
)
def test_pictures_are_seen_in_every_protocol(said):
    assert has_pictures(json.dumps({"model": "m", **said}).encode())


@pytest.mark.parametrize(
    "said",
    [
        {"messages": [{"role": "user", "content": 'say {"type": "image_url"}'}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": '"type": "image"'}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"type": "image"}}]}]},
        {"input": "image"},
        {"input": ["a", "b"]},
        {"input": [[1, 2]]},
        {"messages": [], "tools": [{"type": "image"}]},
        {"messages": 5},
        {"messages": [5]},
        {"messages": [{"content": [5]}]},
        {},
    ],
)
def test_what_is_no_picture_is_none(said):
    assert not has_pictures(json.dumps({"model": "m", **said}).encode())


@pytest.mark.parametrize("body", [b"", b"[", b"\xff", b'{"messages":' + b"[" * 100_000])
def test_what_cannot_be_read_shows_nothing(body):
    assert not has_pictures(body)


def test_a_long_body_is_left_to_the_engine():
    long = PICTURE + "A" * MOST_BYTES
    said = {"messages": [{"content": [{"type": "image_url", "image_url": {"url": long}}]}]}
    assert not has_pictures(json.dumps(said).encode())
