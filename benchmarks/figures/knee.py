"""The knee of throughput against latency: up to where more load is worth its wait; pure.

It is where Kleinrock's *power*, throughput over mean latency, is greatest (L. Kleinrock, "Power and
deterministic rules of thumb for probabilistic problems in computer communications", ICC 1979): below it more
load still gains more throughput than it costs latency, above it the other way round. It asks for no smooth
curve, which a ramp of some steps is not.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """One step of a ramp.

    Attributes:
        level: of the load: streams, or requests a second.
        throughput: what came of it, a second.
        latency_s: mean time of a request; none where nothing was answered.
    """

    level: float
    throughput: float
    latency_s: float | None

    @property
    def power(self) -> float:
        """Throughput over latency; 0 where nothing was answered."""
        return self.throughput / self.latency_s if self.latency_s else 0.0


@dataclass(frozen=True, slots=True)
class Knee:
    """Where the knee is, or why none was found.

    Attributes:
        index: of the step; none where there is no knee.
        why: in words for people.
    """

    index: int | None
    why: str


def find_knee(points: Sequence[Point]) -> Knee:
    """The step of greatest power, if the ramp goes on to both sides of it.

    Args:
        points: the steps by rising level.
    """
    if len(points) < 3:
        return Knee(None, f"a knee takes three steps at least, and here are {len(points)}")
    powers = [point.power for point in points]
    best = powers.index(max(powers))
    if not powers[best]:
        return Knee(None, "no step was answered")
    if best == len(points) - 1:
        return Knee(None, "throughput over latency still rises at the last step: ramp on to a higher load")
    if best == 0:
        return Knee(None, "throughput over latency falls from the first step on: the knee is there or below")
    return Knee(best, "throughput over latency is greatest there (Kleinrock's power)")
