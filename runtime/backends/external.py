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
_PASSED_ON = ("remote_host", "remote_model")
"""What Ollama says of a model that another machine runs."""
_SHAPES: Mapping[EndpointKind, tuple[str, str]] = {"openai": ("data", "id"), "ollama": ("models", "name")}


@dataclass(frozen=True, slots=True)
class Listed:
    """It answers, and has these models, by its own names.

    Attributes:
        passed_on: those that it only passes on to a machine elsewhere, as Ollama does with its maker's cloud.
    """

    names: frozenset[str]
    passed_on: frozenset[str] = frozenset()


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
    listed = _listed(kind, body)
    if listed is None:
        return Trouble("answers, but lists no models", f"correct its `kind` ({LISTING[kind]} is asked)")
    return listed


def _listed(kind: EndpointKind, body: bytes) -> Listed | None:
    members, key = _SHAPES[kind]
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    entries = document.get(members) if isinstance(document, dict) else None
    if not isinstance(entries, list):
        return None
    named = [entry for entry in entries if isinstance(entry, dict) and isinstance(entry.get(key), str)]
    passed_on = [entry for entry in named if any(entry.get(word) for word in _PASSED_ON)]
    return Listed(*(frozenset(entry[key] for entry in each) for each in (named, passed_on)))


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of an endpoint after the looks so far; of one that was not looked at, nothing good."""

    listed: Listed = Listed(frozenset())
    trouble: Trouble | None = Trouble("was not looked at yet", "")
    misses: int = 0

    def after(self, look: Look) -> "Health":
        """The next state. One that served is given up at once for a clear reason, else after `MISSES`."""
        if isinstance(look, Listed):
            return Health(look, None)
        misses = self.misses + 1
        if self.trouble is None and not look.is_clear and misses < MISSES:
            return Health(self.listed, None, misses)
        return Health(trouble=look, misses=misses)

    def trouble_with(self, kind: EndpointKind, name: str) -> Trouble | None:
        """Why the model of that name is not served; None where it is."""
        if self.trouble is not None:
            return self.trouble
        if not _holds(self.listed.names, kind, name):
            return Trouble("does not have the model", f"bring {name!r} there, or correct its `models`")
        if _holds(self.listed.passed_on, kind, name):
            return Trouble(
                "passes the model on to a machine elsewhere", f"name another than {name!r} in its `models`"
            )
        return None


def _holds(names: frozenset[str], kind: EndpointKind, name: str) -> bool:
    return _full(kind, name) in {_full(kind, each) for each in names}


def _full(kind: EndpointKind, name: str) -> str:
    """Ollama takes a name without a tag for the one tagged `latest`."""
    return f"{name}:latest" if kind == "ollama" and ":" not in name.rpartition("/")[2] else name
