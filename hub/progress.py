"""How long a load still takes, from what a node reports of it.

Owns the estimate and what it needs to remember. Pure: times are arguments, monotonic seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tunnel.messages import ModelStatus

MIN_SPAN_S = 1.0
"""Seconds of progress before a rate means anything."""


@dataclass(slots=True)
class _Step:
    """One phase of one model's load: where it was first seen, and where it is."""

    phase: str
    began_at: float
    began_bytes: int
    at: float
    done_bytes: int
    total_bytes: int

    @property
    def eta_s(self) -> float | None:
        span, gained = self.at - self.began_at, self.done_bytes - self.began_bytes
        if span < MIN_SPAN_S or gained <= 0:
            return None
        return max(self.total_bytes - self.done_bytes, 0) * span / gained


class Loads:
    """The loads of one node."""

    def __init__(self) -> None:
        self._steps: dict[str, _Step] = {}

    def report(self, models: Iterable[ModelStatus], now: float) -> None:
        """Take a report; a model that is not warming any more is forgotten."""
        warming = {
            model.model: model for model in models if model.state == "warming" and model.total_bytes > 0
        }
        self._steps = {name: self._step(model, now) for name, model in warming.items()}

    def _step(self, model: ModelStatus, now: float) -> _Step:
        step = self._steps.get(model.model)
        if step is None or step.phase != model.phase or model.done_bytes < step.done_bytes:
            return _Step(model.phase, now, model.done_bytes, now, model.done_bytes, model.total_bytes)
        step.at, step.done_bytes, step.total_bytes = now, model.done_bytes, model.total_bytes
        return step

    def eta_s(self, model: str) -> float | None:
        """Seconds until the present phase ends at its mean rate so far; ``None`` where nobody can say."""
        step = self._steps.get(model)
        return None if step is None else step.eta_s
