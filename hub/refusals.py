"""What a caller is told when no node answers: resets, closed sessions and the router's counts in words.

Owns those words and which failures another node may not share. Pure: no I/O, no clock, no HTTP.
"""

from __future__ import annotations

from hub.errors import RequestFailed
from hub.router import Reason, Refusal
from tunnel.errors import ResetCode, SessionClosed, StreamReset, TooManyStreams

TRY_ELSEWHERE = frozenset({"node_lost", "overloaded", "no_available_node", "model_not_found"})
"""Codes after which another node may be tried. An engine's failure is not among them: a request that one
engine died of would be handed from node to node, and each time end everybody's answers there."""

_RESETS = {
    ResetCode.REFUSED: ("no_available_node", "The node that was to answer takes no new requests now."),
    ResetCode.TICKET_REFUSED: (
        "no_available_node",
        "The node that was to answer did not accept the request.",
    ),
    ResetCode.OVERLOADED: ("overloaded", "Every node that may serve this request is full."),
    ResetCode.WARMING: (
        "model_warming",
        "A node is loading the model, for longer than the request would wait.",
    ),
    ResetCode.DEADLINE: ("deadline_exceeded", "The request's deadline passed."),
    ResetCode.LOAD_FAILED: ("engine_error", "The node could not load the model."),
    ResetCode.ENGINE_ERROR: ("engine_error", "The engine on the node failed."),
}
_NODE_LOST = ("node_lost", "The node that was answering was lost.")
_DATABASE = (
    "database_unavailable",
    "The Hub's database does not answer, and what was asked needs it, such as a key not used lately.",
)
_RETRY_AFTER_S = {
    "no_available_node": 5.0,
    "overloaded": 2.0,
    "model_warming": 5.0,
    "database_unavailable": 5.0,
}

_REASONS = {
    Reason.DRAINING: "on drain",
    Reason.OFFLINE: "offline",
    Reason.UNREPORTED: "just connecting",
    Reason.REGION: "outside the key's regions",
    Reason.TRUST: "below the key's trust class",
    Reason.FIT: "without room or an engine for the model",
    Reason.NOT_OFFERED: "not offering the model",
    Reason.PAUSED: "not taking requests",
    Reason.NARROWED: "not what the request's own headers ask for",
    Reason.REVOKED: "revoked",
}


def from_reset(reset: StreamReset) -> RequestFailed:
    """A stream that ended before its time."""
    return _failure(*_RESETS.get(reset.code, _NODE_LOST))


def from_opening(error: SessionClosed | TooManyStreams) -> RequestFailed:
    """A stream that could not be opened."""
    full = isinstance(error, TooManyStreams)
    return overloaded() if full else _failure(*_RESETS[ResetCode.REFUSED])


def overloaded() -> RequestFailed:
    """Permitted nodes exist, all are full, and the queue's time is up."""
    return _failure(*_RESETS[ResetCode.OVERLOADED])


def database_unavailable() -> RequestFailed:
    """What is asked needs the database, which does not answer."""
    return _failure(*_DATABASE)


def deadline_exceeded() -> RequestFailed:
    """The request's deadline passed."""
    return _failure(*_RESETS[ResetCode.DEADLINE])


def endpoint_not_offered(path: str) -> RequestFailed:
    """The model is here, on engines that do not speak the protocol: trying again will not help."""
    return RequestFailed(
        "unsupported_parameter",
        f"No engine that serves this model now has {path}: ask /v1/chat/completions, or have a node of yours "
        "serve it with an engine that does (llama.cpp's own server, vLLM).",
    )


def model_not_found(model: str) -> RequestFailed:
    """Nothing of that name exists for this caller."""
    return RequestFailed("model_not_found", f"There is no model {model[:128]!r} for this key.", param="model")


def no_available_node(model: str, refusal: Refusal) -> RequestFailed:
    """Nobody may and can serve. Why is said in numbers, of the caller's own nodes: nobody else's appear."""
    counts = [
        f"{refusal.counts[reason]} {words}"
        for reason, words in _REASONS.items()
        if refusal.counts.get(reason)
    ]
    message = f"No node that this key may use is online and offers the model {model[:128]!r}."
    if counts:
        message += f" Of your own nodes: {', '.join(counts)}."
    return _failure("no_available_node", message)


def _failure(code: str, message: str) -> RequestFailed:
    return RequestFailed(code, message, retry_after=_RETRY_AFTER_S.get(code))
