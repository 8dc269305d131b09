"""When a scripted engine sends the chunks of an answer: said by the model's name, and repeatable.

Pure. `scripted-20ms` sends the first chunk at once and the others every 20 ms, in a beat of the stream's own.
With anything more a schedule is exact, from the moment the request is there:

- `scripted-20ms-first150ms`: the first chunk after 150 ms, the others every 20 ms;
- `scripted-20ms-first0ms-jitter8ms`: each gap is 8 ms less to 8 ms more, by chance, the same in every run;
- `scripted-20ms-first0ms-stall500ms-every25`: each 25th gap is 500 ms longer.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

_PREFIX: Final = "scripted-"
_NAME: Final = re.compile(
    rf"{_PREFIX}(?P<interval>[1-9]\d*)ms"
    r"(?:-first(?P<first>\d+)ms(?:-jitter(?P<jitter>[1-9]\d*)ms)?"
    r"(?:-stall(?P<stall>[1-9]\d*)ms-every(?P<every>[1-9]\d*))?)?"
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """All in milliseconds.

    Attributes:
        interval_ms: between two chunks.
        first_ms: before the first chunk; none where it comes at once and the others keep a beat.
        jitter_ms: the most a gap differs from the interval, less than it.
        stall_ms: what is added to some gaps.
        every: to each so many-th gap.
    """

    interval_ms: int
    first_ms: int | None = None
    jitter_ms: int = 0
    stall_ms: int = 0
    every: int = 0

    @classmethod
    def of(cls, model: str) -> Self | None:
        """The schedule of a model; none for a name that says none."""
        found = _NAME.fullmatch(model)
        if found is None:
            return None
        said = {name: int(value) for name, value in found.groupdict().items() if value is not None}
        schedule = cls(
            said["interval"],
            said.get("first"),
            said.get("jitter", 0),
            said.get("stall", 0),
            said.get("every", 0),
        )
        return schedule if schedule.jitter_ms < schedule.interval_ms else None

    @property
    def model(self) -> str:
        """The model's name."""
        name = f"{_PREFIX}{self.interval_ms}ms"
        if self.first_ms is not None:
            name += f"-first{self.first_ms}ms"
        if self.jitter_ms:
            name += f"-jitter{self.jitter_ms}ms"
        return f"{name}-stall{self.stall_ms}ms-every{self.every}" if self.stall_ms else name

    @property
    def exact(self) -> bool:
        """Whether it counts from the request, and is recorded."""
        return self.first_ms is not None

    def gaps(self, answer: int) -> Iterator[int]:
        """Milliseconds between the chunks of the answer of that number; endless."""
        chance = random.Random(f"{self.model}/{answer}")  # noqa: S311 - repeatable on purpose
        number = 0
        while True:
            number += 1
            gap = self.interval_ms
            if self.jitter_ms:
                gap += chance.randint(-self.jitter_ms, self.jitter_ms)
            yield gap + self.stall_ms if self.every and number % self.every == 0 else gap


def model_name(interval_ms: int) -> str:
    """The model that sends a chunk at once and then at this pace."""
    return Schedule(interval_ms).model
