"""What would need something stored, or somebody else's server, is refused; nothing else is."""

import json

import msgspec
import pytest

from runtime.errors import RequestRefused
from runtime.stateless import Members, check_members

RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"


def members(**said: object) -> Members:
    return msgspec.json.decode(json.dumps(said), type=dict[str, msgspec.Raw])


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (RESPONSES, {"previous_response_id": "resp_1"}),
        (RESPONSES, {"conversation": {"id": "conv_1"}}),
        (RESPONSES, {"background": True}),
        (RESPONSES, {"store": True}),
        (RESPONSES, {"prompt": {"id": "pmpt_1"}}),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "web_search"}]}),
        (RESPONSES, {"tools": [{"type": "mcp", "server_url": "https://elsewhere.example"}]}),
        (MESSAGES, {"mcp_servers": [{"type": "url", "url": "https://elsewhere.example"}]}),
        (MESSAGES, {"container": "c"}),
        (MESSAGES, {"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}),
    ],
)
def test_it_is_refused_and_named(path: str, said: dict[str, object]) -> None:
    with pytest.raises(RequestRefused) as caught:
        check_members(members(model="m", **said), path)
    assert caught.value.code == "unsupported_parameter"
    assert caught.value.param == next(iter(said))
    assert "elsewhere.example" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (
            RESPONSES,
            {"previous_response_id": None, "store": False, "background": False, "conversation": None},
        ),
        (RESPONSES, {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]}),
        (RESPONSES, {"tools": []}),
        (RESPONSES, {"tools": None}),
        (RESPONSES, {"tools": "x"}),
        (RESPONSES, {"tools": [5]}),
        (MESSAGES, {"tools": [{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}]}),
        (MESSAGES, {"mcp_servers": []}),
        (MESSAGES, {"store": True}),
        ("/v1/chat/completions", {"store": True, "tools": [{"type": "web_search"}]}),
    ],
)
def test_it_is_the_engines_to_judge(path: str, said: dict[str, object]) -> None:
    check_members(members(model="m", **said), path)
