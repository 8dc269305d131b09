"""The API's endpoints that lead to an engine, and what each asks of a model and of the engine that serves it.

Pure. Must not know what is in a body; how an answer ends is `runtime.closing`'s business.
"""

from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Final

CAPABILITIES: Final = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/completions": "completions",
        "/v1/embeddings": "embeddings",
        "/v1/responses": "chat",
        "/v1/messages": "chat",
        "/v1/rerank": "rerank",
    }
)
"""Paths with the capability that each asks of a model."""
PATHS: Final = frozenset(CAPABILITIES)
"""What an engine may be asked: its other endpoints (slots, metrics, model management) are the node's own."""
PROTOCOLS: Final = MappingProxyType({"/v1/responses": "responses", "/v1/messages": "messages"})
"""Paths that not every engine that chats has, with the word by which a node says that one does. They speak of
chats: a model that does not chat has none of them."""
BOTH: Final = frozenset(PROTOCOLS.values())
"""What llama.cpp's own server and vLLM have."""


def protocols_of(capabilities: AbstractSet[str], engine: AbstractSet[str]) -> frozenset[str]:
    """Those words of an engine's that hold for a model."""
    return BOTH & engine if "chat" in capabilities else frozenset()
