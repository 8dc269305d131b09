"""What a body may not ask for here: anything that would need what was said to be kept, or a server elsewhere.

OpenAI's Responses and Anthropic's Messages have members by which their makers' services go on with a
conversation that they have stored, or run tools of their own. A node stores nothing and asks nobody: such a
request would be answered as if it had asked for less. Pure. Never stores or logs what it looks at.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from runtime.errors import RequestRefused

Members = Mapping[str, msgspec.Raw]

_NOTHING_STORED: Final = "Nothing is stored here: send the whole conversation with each request."
_NOBODY_ASKED: Final = "Only the caller's own functions can be tools: nothing here asks other servers."
_REFUSED: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    {
        "/v1/responses": {
            "background": _NOTHING_STORED,
            "conversation": _NOTHING_STORED,
            "previous_response_id": _NOTHING_STORED,
            "prompt": _NOTHING_STORED,
            "store": _NOTHING_STORED,
        },
        "/v1/messages": {"container": _NOTHING_STORED, "mcp_servers": _NOBODY_ASKED},
    }
)
_ASKS_NOTHING: Final = (b"null", b"false", b"[]")
_OWN_TOOLS: Final = frozenset({None, "custom", "function"})


class _Tool(msgspec.Struct):
    type: str | None = None


def check_members(members: Members, path: str) -> None:
    """Refuse what cannot be done here. What has a wrong type is the engine's to refuse.

    Raises:
        RequestRefused: `unsupported_parameter`, with the member.
    """
    refused = _REFUSED.get(path)
    if refused is None:
        return
    for name, why in refused.items():
        if (value := members.get(name)) is not None and bytes(value).strip() not in _ASKS_NOTHING:
            raise RequestRefused("unsupported_parameter", why, param=name)
    if any(tool.type not in _OWN_TOOLS for tool in _tools(members)):
        raise RequestRefused("unsupported_parameter", _NOBODY_ASKED, param="tools")


def _tools(members: Members) -> list[_Tool]:
    try:
        return msgspec.json.decode(members.get("tools", msgspec.Raw(b"[]")), type=list[_Tool])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
