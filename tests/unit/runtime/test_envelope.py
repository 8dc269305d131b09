"""Errors of the node and of its engines reach the caller in OpenAI's envelope."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.envelope import from_engine, from_fault, request_headers, response_headers
from runtime.errors import (
    BodyTooLarge,
    EngineConnectionLost,
    EngineUnavailable,
    EngineUnreachable,
    IdentityInvalid,
    LoadFailed,
    ModelDoesNotFit,
    ModelUnknown,
    NodeStopping,
    Overloaded,
    RuntimeFault,
    Warming,
)
from runtime.progress import LoadProgress


def llama_cpp(code: int, kind: str, message: str, **more: object) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, "type": kind, **more}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, llama_cpp(400, "invalid_request_error", "'messages' is required"), (400, "invalid_request")),
        (
            400,
            llama_cpp(
                400, "exceed_context_size_error", "the request exceeds", n_prompt_tokens=9000, n_ctx=8192
            ),
            (400, "context_length_exceeded"),
        ),
        (
            400,
            b'{"object":"error","message":"maximum context length is 8192","code":400}',
            (400, "context_length_exceeded"),
        ),
        (
            500,
            llama_cpp(500, "server_error", "[json.exception.type_error.302] type must be"),
            (400, "invalid_request"),
        ),
        (500, llama_cpp(500, "server_error", "it broke"), (502, "engine_error")),
        *(
            (500, llama_cpp(500, "server_error", said), (400, "invalid_request"))
            for said in (
                "Unknown reasoning format: xyz",
                "Failed to parse tools: Missing tool function",
                "Failed to parse messages: Missing 'role' in message",
            )
        ),
        (501, llama_cpp(501, "not_supported_error", "no embeddings here"), (400, "unsupported_parameter")),
        (503, llama_cpp(503, "unavailable_error", "Loading model"), (503, "overloaded")),
        (401, llama_cpp(401, "authentication_error", "Invalid API Key"), (502, "engine_error")),
        (404, llama_cpp(404, "not_found_error", "File Not Found"), (400, "unsupported_parameter")),
        (404, b'{"detail":"Not Found"}', (400, "unsupported_parameter")),
        (405, b'{"detail":"Method Not Allowed"}', (400, "unsupported_parameter")),
        (404, b"404 page not found", (400, "unsupported_parameter")),
        (404, b'{"error":{"message":"model \'x\' not found"}}', (404, "unknown_url")),
        (400, b'{"error":{"message":"m is not a multimodal model"}}', (400, "unsupported_parameter")),
        (
            400,
            b'{"error":{"message":"The model takes nothing but text."}}',
            (400, "unsupported_parameter"),
        ),
        (413, b"Payload Too Large", (413, "request_too_large")),
        (422, b'{"detail":"field required"}', (400, "invalid_request")),
        (502, b"<html>", (502, "engine_error")),
    ],
)
def test_an_engines_error_gets_the_envelope(status: int, body: bytes, expected: tuple[int, str]) -> None:
    answer = from_engine(status, body)
    assert (answer.status, answer.code) == expected
    error = json.loads(answer.body("req_a"))["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]


def test_the_engines_own_words_and_param_are_kept() -> None:
    body = json.dumps(
        {"error": {"message": "too hot", "type": "t", "param": "temperature", "code": "bad_value"}}
    )
    answer = from_engine(400, body.encode())
    assert (answer.message, answer.param, answer.code) == ("too hot", "temperature", "bad_value")


@pytest.mark.parametrize(
    ("said", "message", "param"),
    [
        (
            "Field 'max_tokens': [json.exception.type_error.302] type must be number, but is string",
            "Field 'max_tokens': type must be number, but is string",
            "max_tokens",
        ),
        ("'messages' is required", "'messages' is required", "messages"),
        ("Expected 'messages' to be an array", "Expected 'messages' to be an array", "messages"),
        (
            '"documents" must be a non-empty string array',
            '"documents" must be a non-empty string array',
            "documents",
        ),
        ("the user's 'thing'", "the user's 'thing'", None),
    ],
)
def test_llama_cpps_words_name_the_parameter(said: str, message: str, param: str | None) -> None:
    answer = from_engine(400, llama_cpp(400, "invalid_request_error", said))
    assert (answer.message, answer.param) == (message, param)


def test_advice_for_operators_is_left_out() -> None:
    said = "image input is not supported - hint: if this is unexpected, provide the mmproj"
    answer = from_engine(500, llama_cpp(500, "server_error", said))
    assert (answer.status, answer.code, answer.param) == (400, "unsupported_parameter", "messages")
    assert answer.message == "The model takes no image."
    said = "input (14000 tokens) is too large to process. increase the physical batch size (current: 512)"
    answer = from_engine(500, llama_cpp(500, "server_error", said))
    assert (answer.status, answer.code) == (400, "context_length_exceeded")
    assert answer.message == "input (14000 tokens) is too large to process"
    said = "request (18031 tokens) exceeds the available context size (8192 tokens), try increasing it"
    answer = from_engine(400, llama_cpp(400, "exceed_context_size_error", said))
    assert answer.code == "context_length_exceeded"
    assert answer.message.endswith("context size (8192 tokens)")


def test_the_key_between_node_and_engine_is_never_spoken_of() -> None:
    assert "Key" not in from_engine(401, llama_cpp(401, "authentication_error", "Invalid API Key")).message


@given(status=st.integers(min_value=400, max_value=599), body=st.binary(max_size=500))
def test_any_error_body_becomes_an_envelope(status: int, body: bytes) -> None:
    answer = from_engine(status, body)
    assert 400 <= answer.status < 600
    assert len(json.loads(answer.body())["error"]["message"]) <= 2000


@given(
    document=st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["error", "message", "type", "code", "param", "detail"]), inner)
        ),
    )
)
def test_any_json_becomes_an_envelope(document: object) -> None:
    json.loads(from_engine(400, json.dumps(document).encode()).body())


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ModelUnknown("m"), 404, "model_not_found"),
        (Warming("m", LoadProgress("downloading", 1, 2)), 503, "model_warming"),
        (Overloaded("m"), 503, "overloaded"),
        (LoadFailed("m", "why"), 502, "engine_error"),
        (EngineUnreachable("x"), 502, "engine_error"),
        (EngineConnectionLost("x"), 502, "engine_error"),
        (ModelDoesNotFit("m", "why"), 503, "no_available_node"),
        (EngineUnavailable("no engine", remedy="install it"), 503, "no_available_node"),
        (NodeStopping("stopping"), 503, "no_available_node"),
        (BodyTooLarge(5), 413, "request_too_large"),
        (IdentityInvalid("secret path"), 502, "engine_error"),
    ],
)
def test_each_fault_has_its_place(fault: RuntimeFault, status: int, code: str) -> None:
    answer = from_fault(fault)
    assert (answer.status, answer.code) == (status, code)
    assert "secret" not in answer.message


def test_what_may_be_tried_again_says_when() -> None:
    assert ("retry-after", "5") in from_fault(Warming("m", LoadProgress("loading"))).headers()
    assert ("retry-after", "3") in from_fault(Overloaded("m", retry_after_s=2.2)).headers()
    assert all(name != "retry-after" for name, _ in from_fault(ModelUnknown("m")).headers())


def test_only_harmless_headers_pass() -> None:
    asked = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer x"),
        ("Cookie", "c"),
        ("Accept", "*/*"),
    ]
    assert request_headers(asked) == [("content-type", "application/json"), ("accept", "*/*")]
    answered = [("Content-Type", "text/event-stream"), ("Server", "llama.cpp"), ("Set-Cookie", "c")]
    assert response_headers(answered, digest="sha256:ab") == (
        ("content-type", "text/event-stream"),
        ("x-porten-model-digest", "sha256:ab"),
    )


def test_an_engines_advice_to_its_owner_is_not_for_who_asks() -> None:
    said = llama_cpp(501, "not_supported_error", "Start it with `--embeddings`")
    assert "--embeddings" not in from_engine(501, said).message
