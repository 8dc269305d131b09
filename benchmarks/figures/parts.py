"""Which part of a run figures are told of, and what happened within it: pure.

Knows when requests began and tokens came; not what any of it means.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

from benchmarks.generator.client import Sample


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of a run, in seconds of its clock; both ends belong to it."""

    began_at: float
    ended_at: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.ended_at - self.began_at

    def holds(self, moment: float) -> bool:
        """Whether a moment lies in it."""
        return self.began_at <= moment <= self.ended_at

    def begun_in(self, samples: Iterable[Sample]) -> list[Sample]:
        """The requests whose latency began in it: whole, however long they took."""
        return [sample for sample in samples if self.holds(sample.started_at)]

    def borders(self, count: int) -> list[float]:
        """The inner borders of so many windows of equal time."""
        return [self.began_at + self.seconds * number / count for number in range(1, count)]


def window_of(borders: Sequence[float], moment: float) -> int:
    """In which window a moment lies, counted from 0."""
    return bisect_right(borders, moment)


def arrivals(sample: Sample) -> Iterator[tuple[float, float]]:
    """When output tokens came, and how many: all at once where the answer was not streamed.

    A chunk holds the answer's tokens over its chunks: which one held more is not known.
    """
    if sample.error is not None or sample.last_token_at is None:
        return
    if sample.first_token_at is None:
        yield sample.last_token_at, sample.output_tokens
        return
    share = sample.output_tokens / sample.chunks
    for moment in accumulate(sample.gaps, initial=sample.first_token_at):
        yield moment, share


def tokens_by_window(samples: Iterable[Sample], part: Part, count: int) -> list[float]:
    """Output tokens that came in each of so many windows of the part."""
    return _sums(chain.from_iterable(map(arrivals, samples)), part, count)


def answers_by_window(
    samples: Iterable[Sample], part: Part, count: int, counts: Callable[[Sample], bool] = lambda _: True
) -> list[float]:
    """Answers that were complete in each of so many windows of the part."""
    done = (
        (sample.last_token_at, 1.0)
        for sample in samples
        if sample.error is None and sample.last_token_at is not None and counts(sample)
    )
    return _sums(done, part, count)


def _sums(amounts: Iterable[tuple[float, float]], part: Part, count: int) -> list[float]:
    borders, sums = part.borders(count), [0.0] * count
    for moment, amount in amounts:
        if part.holds(moment):
            sums[window_of(borders, moment)] += amount
    return sums


def in_flight_by_window(samples: Iterable[Sample], part: Part, count: int) -> list[float]:
    """How many requests were under way on average in each of so many windows: begun (or due), not ended."""
    width = part.seconds / count
    if width <= 0:
        return [0.0] * count
    held = [0.0] * count
    for sample in samples:
        began, ended = max(sample.started_at, part.began_at), min(sample.ended_at, part.ended_at)
        first = int((began - part.began_at) / width)
        for window in range(first, count):
            start = part.began_at + window * width
            if start >= ended:
                break
            held[window] += max(0.0, min(ended, start + width) - max(began, start))
    return [seconds / width for seconds in held]
