"""What a load has done so far: one value, shared by the scheduler, its errors and the status reports.

Knows nothing of who downloads or starts anything.
"""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["queued", "downloading", "verifying", "loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load is. Byte counts belong to the phase and are 0/None where it has none."""

    phase: Phase
    done_bytes: int = 0
    total_bytes: int | None = None

    @property
    def fraction(self) -> float | None:
        """Share done in 0..1, or None where the phase cannot tell."""
        if self.phase == "ready":
            return 1.0
        if not self.total_bytes:
            return None
        return min(1.0, self.done_bytes / self.total_bytes)

    def describe(self) -> str:
        """The progress in a few words, for messages read by people."""
        fraction = self.fraction
        return self.phase if fraction is None else f"{self.phase} {fraction:.0%}"


QUEUED = LoadProgress("queued")
