"""What replicas were seen to take, against what was estimated. Pure: numbers in, numbers out; keeps no files.

An estimate is corrected upwards only. What a replica was seen to take is a floor under what it may take: an
engine touches some of its memory late (the experts of a mixture, a cache that is filled lazily), so less than
the estimate says little, and more says enough.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST_SHAPES = 256
# Measurements are kept in whole steps, rounded up: a replica that grows by a page is no news.
STEP_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """What a replica's memory depends on, on each of its devices.

    `digest` is of the weights, `context` in tokens of one slot.
    """

    digest: str
    backend: str
    context: int
    slots: int
    devices: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """The most bytes a shape was seen to take of one device, in whole steps, and what had been estimated."""

    measured: int
    estimated: int

    @property
    def ratio(self) -> float:
        """Measured to estimated; above 1 where the estimate was too low."""
        return self.measured / self.estimated


class Findings:
    """What was found, the shapes least lately run first; the oldest go beyond `MOST_SHAPES`."""

    def __init__(self, known: Iterable[tuple[Shape, Finding]] = ()) -> None:
        self._known: dict[Shape, Finding] = {}
        for shape, finding in known:
            self._put(shape, finding)

    def __iter__(self) -> Iterator[tuple[Shape, Finding]]:
        return iter(self._known.items())

    def __len__(self) -> int:
        return len(self._known)

    def get(self, shape: Shape) -> Finding | None:
        """What was found of a shape."""
        return self._known.get(shape)

    def learn(self, shape: Shape, *, measured: int, estimated: int) -> bool:
        """Take note of a measurement, in bytes; whether it is news, being the first or the largest so far."""
        known, measured = self._known.get(shape), -(-measured // STEP_BYTES) * STEP_BYTES
        if measured <= 0 or estimated <= 0 or (known is not None and measured <= known.measured):
            return False
        self._put(shape, Finding(measured, estimated))
        return True

    def planned(self, shape: Shape, estimated: int) -> int:
        """Bytes to reserve: never below the estimate, nor below what this shape was seen to take.

        A shape that never ran is corrected as the worst of the same weights on the same backend was.
        """
        if (known := self._known.get(shape)) is not None:
            return max(known.measured, math.ceil(estimated * max(1.0, known.ratio)))
        alike = (
            finding.ratio
            for other, finding in self._known.items()
            if (other.digest, other.backend) == (shape.digest, shape.backend)
        )
        return math.ceil(estimated * max(1.0, max(alike, default=1.0)))

    def _put(self, shape: Shape, finding: Finding) -> None:
        self._known.pop(shape, None)
        self._known[shape] = finding
        while len(self._known) > MOST_SHAPES:
            del self._known[next(iter(self._known))]
