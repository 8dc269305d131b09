"""An endpoint that the owner runs: what it is asked to see whether it serves, and what its answers mean.

Pure. Starts and ends nothing: such an endpoint is watched, never managed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runtime.endpoint_settings import EndpointKind

LISTING: Mapping[EndpointKind, str] = {"openai": "/v1/models", "ollama": "/api/tags"}
"""Where each kind lists its models."""
MISSES = 3
"""Looks in a row that may fail for no clear reason before an endpoint that served counts as lost: a busy one
may be slow to answer."""
_SHAPES: Mapping[EndpointKind, tuple[str, str]] = {"openai": ("data", "id"), "ollama": ("models", "name")}


@dataclass(frozen=True, slots=True)
class Listed:
    """It answers, and has these models, by its own names."""

    names: frozenset[str]


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why it does not serve, and what its owner can do.

    Attributes:
        reason: goes on after the endpoint's name; requesters see it, so it names no address and no file.
        is_clear: it says that there is nothing to wait for; else the next look may find it well.
    """

    reason: str
    remedy: str
    is_clear: bool = True


Look = Listed | Trouble


def read_listing(kind: EndpointKind, status: int, body: bytes) -> Look:
    """What an answer to `LISTING` means."""
    if status in (401, 403):
        return Trouble("refuses the node's key", "correct its `api_key_file`")
    if status == 404:
        return Trouble("does not list its models", f"correct its `url` or `kind` ({LISTING[kind]} is asked)")
    if status != 200:
        return Trouble(f"answers with status {status}", "look at its own log", is_clear=False)
    names = _names(kind, body)
    if names is None:
        return Trouble("answers, but lists no models", f"correct its `kind` ({LISTING[kind]} is asked)")
    return Listed(names)


def _names(kind: EndpointKind, body: bytes) -> frozenset[str] | None:
    members, key = _SHAPES[kind]
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    entries = document.get(members) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    named = (entry.get(key) for entry in entries if isinstance(entry, dict))
    return frozenset(name for name in named if isinstance(name, str))


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint after the looks so far; of one that was not looked at, nothing good."""

    names: frozenset[str] = frozenset()
    trouble: Trouble | None = Trouble("was not looked at yet", "")
    misses: int = 0

    def after(self, look: Look) -> "Health":
        """The next state. One that served is given up at once for a clear reason, else after `MISSES`."""
        if isinstance(look, Listed):
            return Health(look.names, None)
        misses = self.misses + 1
        if self.trouble is None and not look.is_clear and misses < MISSES:
            return Health(self.names, None, misses)
        return Health(frozenset(), look, misses)

    def trouble_with(self, kind: EndpointKind, name: str) -> Trouble | None:
        """Why the model of that name is not served; None where it is."""
        if self.trouble is not None:
            return self.trouble
        if _full(kind, name) not in {_full(kind, listed) for listed in self.names}:
            return Trouble("does not have the model", f"bring {name!r} there, or correct its `models`")
        return None


def _full(kind: EndpointKind, name: str) -> str:
    """Ollama takes a name without a tag for the one tagged `latest`."""
    return f"{name}:latest" if kind == "ollama" and ":" not in name.rpartition("/")[2] else name
