"""How far a model's load is, as `GET /v1/models/{id}/warming` tells it.

Owns the document and how long the rest takes. Pure: times are arguments, monotonic seconds.
"""

from dataclasses import dataclass
from typing import Any

from runtime.snapshot import ModelView

MIN_SPAN_S = 1.0
"""Seconds of progress before a rate means anything."""


@dataclass(frozen=True, slots=True)
class _Since:
    """Where a phase stood when somebody asked first."""

    phase: str
    at: float
    done_bytes: int


class Warmings:
    """What was seen of loads so far: nothing is looked at but what somebody asks for."""

    def __init__(self) -> None:
        self._seen: dict[str, _Since] = {}

    def describe(self, view: ModelView, now: float) -> dict[str, Any]:
        """The document; `percent` and `eta_s` are None where bytes are not what is being counted."""
        counted = view.state == "warming" and bool(view.total_bytes)
        total = view.total_bytes or 0
        eta_s = self._eta_s(view, total, now) if counted else None
        return {
            "model": view.model,
            "state": view.state,
            "phase": _phase(view),
            "bytes_done": view.done_bytes,
            "bytes_total": total,
            "percent": round(100 * min(view.done_bytes / total, 1), 1) if counted else None,
            "eta_s": None if eta_s is None else round(eta_s, 1),
        }

    def _eta_s(self, view: ModelView, total: int, now: float) -> float | None:
        """Seconds until the present phase ends at its mean rate since it was first asked for."""
        since = self._seen.get(view.model)
        if since is None or since.phase != view.phase or view.done_bytes < since.done_bytes:
            since = self._seen[view.model] = _Since(view.phase, now, view.done_bytes)
        span, gained = now - since.at, view.done_bytes - since.done_bytes
        if span < MIN_SPAN_S or gained <= 0:
            return None
        return max(total - view.done_bytes, 0) * span / gained


def _phase(view: ModelView) -> str:
    """As the Hub has it: what is verified is still on its way, and what nobody asked for is cold."""
    if view.state == "ready" or view.phase == "failed":
        return view.phase
    if view.state == "cold":
        return "cold"
    return "downloading" if view.phase == "verifying" else view.phase
