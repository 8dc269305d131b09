"""Numbers from samples: percentiles, summaries and bootstrap intervals.

Pure functions over plain sequences; knows nothing of requests, endpoints or clocks.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, fsum, log


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of one measured quantity, in the quantity's own unit."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with the bounds within which it lies with the given confidence.

    Attributes:
        median: the figure itself: the median of rounds, or of a run what `blocks` makes of all its samples.
        values: one of each round, or of each block of a run, from which the bounds come.
    """

    median: float
    low: float
    high: float
    confidence: float
    values: tuple[float, ...]

    @property
    def count(self) -> int:
        """How many values there were."""
        return len(self.values)

    def scaled(self, factor: float) -> "Interval":
        """The same in another unit; a factor over 0."""
        return Interval(
            self.median * factor,
            self.low * factor,
            self.high * factor,
            self.confidence,
            tuple(value * factor for value in self.values),
        )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which ``percent`` of a hundred lie, interpolated linearly between neighbours.

    It is the definition that numpy's ``percentile`` has by default, and so the one behind the figures
    of vLLM's ``bench serve``: numbers of both programs can be laid side by side.

    Raises:
        ValueError: there are no values, or ``percent`` is outside 0..100.
    """
    return _percentile_of_sorted(sorted(values), percent)


def percentiles(values: Sequence[float], percents: Sequence[float]) -> list[float]:
    """Several percentiles at the cost of one.

    Raises:
        ValueError: as ``percentile``.
    """
    ordered = sorted(values)
    return [_percentile_of_sorted(ordered, percent) for percent in percents]


def least_samples(percent: float, *, confidence: float = 0.95) -> int:
    """How many samples a percentile takes before it can be told.

    With fewer, all of them lie below the true percentile with a chance of more than 1 - ``confidence``, and
    what is told is only the largest sample (Wilks, "Determination of sample sizes for setting tolerance
    limits", Annals of Mathematical Statistics 12, 1941). p90 takes 29, p95 59, p99 299 and p99.9 2,995.
    """
    return ceil(log(1 - confidence) / log(percent / 100))


def summarise(values: Sequence[float]) -> Summary | None:
    """A summary of the values; none where there are no values, since a zero would look like a result."""
    if not values:
        return None
    ordered = sorted(values)
    return Summary(
        count=len(ordered),
        mean=_mean_of_sorted(ordered),
        p50=_percentile_of_sorted(ordered, 50),
        p90=_percentile_of_sorted(ordered, 90),
        p95=_percentile_of_sorted(ordered, 95),
        p99=_percentile_of_sorted(ordered, 99),
        p999=_percentile_of_sorted(ordered, 99.9),
        minimum=ordered[0],
        maximum=ordered[-1],
    )


def median(values: Sequence[float]) -> float:
    """The middle value. Raises ValueError where there are none."""
    return percentile(values, 50)


def bootstrap_median(
    values: Sequence[float], *, seed: int, resamples: int = 2000, confidence: float = 0.95
) -> Interval:
    """The median and its percentile-bootstrap interval.

    Rounds on a shared machine scatter, with outliers to one side; resampling asks nothing of their
    distribution, where a standard error would assume one. The same seed gives the same interval.

    Raises:
        ValueError: there are no values.
    """
    middle = median(values)
    chance = random.Random(seed)  # noqa: S311 - resampling, not secrecy
    medians = sorted(median(chance.choices(values, k=len(values))) for _ in range(resamples))
    tail = (1 - confidence) / 2 * 100
    return Interval(
        median=middle,
        low=_percentile_of_sorted(medians, tail),
        high=_percentile_of_sorted(medians, 100 - tail),
        confidence=confidence,
        values=tuple(values),
    )


def _mean_of_sorted(ordered: Sequence[float]) -> float:
    # The division may round past an end when all values are equal; a mean outside its range is wrong.
    return min(max(fsum(ordered) / len(ordered), ordered[0]), ordered[-1])


def _percentile_of_sorted(ordered: Sequence[float], percent: float) -> float:
    if not ordered:
        raise ValueError("no values to take a percentile of")
    if not 0 <= percent <= 100:
        raise ValueError(f"percentile {percent} is outside 0..100")
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    if below == len(ordered) - 1:
        return ordered[below]
    low, high = ordered[below], ordered[below + 1]
    return min(max(low + (high - low) * (position - below), low), high)
