"""Whether a series trends, and which of its first values do not belong to it: pure.

Both tests ask nothing of the values' distribution: latencies have long tails, and one stall must neither make
a trend nor hide one.
"""

from collections.abc import Sequence
from itertools import combinations
from math import sqrt

from benchmarks.figures.statistics import median, percentiles

_FENCE: float = 1.5
"""Interquartile ranges beyond the quartiles, from where a value is an outlier (Tukey, "Exploratory Data
Analysis", 1977)."""
_SAME: float = 0.05
"""Values that differ from the median by less than this share of it are never outliers."""


def leading_outliers(values: Sequence[float | None]) -> int:
    """How many values at the beginning lie outside of what the series is in its second half.

    It is Conway's rule ("Some tactical problems in digital simulation", Management Science 10, 1963), which
    cuts until the first value left is no extreme of the rest, with Tukey's fences for the rest's extremes,
    and two values in succession asked for. Rules that minimise an error over the whole series, such as
    White's MSER (1997), would also cut off everything before a single stall in the first half, and with it
    the stall.

    Args:
        values: of successive windows of time; none where nothing was seen in one.

    Returns:
        A number of windows, up to all.
    """
    low, high = _fences([value for value in values[len(values) // 2 :] if value is not None])
    before = 0  # how many are cut if the next two seen lie within
    inside = 0
    for number, value in enumerate(values):
        if value is None:
            continue
        inside = inside + 1 if low <= value <= high else 0
        if inside == 0:
            before = number + 1
        elif inside == 2:
            return before
    return len(values)


def _fences(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return float("inf"), float("-inf")
    first, middle, third = percentiles(values, (25, 50, 75))
    margin = max(_FENCE * (third - first), _SAME * abs(middle))
    return first - margin, third + margin


def kendall_z(values: Sequence[float]) -> float:
    """How surely a series rises (above 0) or falls: beyond 2.6 either way chance is below 1 %.

    The test of Mann ("Nonparametric tests against trend", Econometrica 13, 1945) and Kendall, without its
    correction for ties, which errs to the side of no trend.
    """
    count = len(values)
    if count < 3:
        return 0.0
    score = sum((later > earlier) - (later < earlier) for earlier, later in combinations(values, 2))
    deviation = sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return (score - (score > 0) + (score < 0)) / deviation


def rise(values: Sequence[float]) -> float:
    """By how much a series rises from its first value to its last: the slope of Theil and Sen (1968).

    That is the median of the slopes between all pairs, so that single values far off change nothing.
    """
    if len(values) < 2:
        return 0.0
    numbered = list(enumerate(values))
    slopes = [
        (later - earlier) / (there - here) for (here, earlier), (there, later) in combinations(numbered, 2)
    ]
    return median(slopes) * (len(values) - 1)
