"""Whether two samples differ, by how much, and how often chance alone would say so.

Pure functions over plain sequences, with no chance in them: the same values give the same answer.

- The test is that of ranks (Mann and Whitney, Annals of Mathematical Statistics 18, 1947), two-sided. It asks
  nothing of the distribution, and an outlier weighs no more than its rank. Its null distribution is exact for
  up to `_EXACT` values together, ties by mid-ranks included (Lehmann, Nonparametrics, 1975, section 1.4);
  beyond, it is the normal one with corrections for ties and continuity.
- How much is the median of all pairs' ratios or differences (Hodges and Lehmann, Annals of Mathematical
  Statistics 34, 1963), with the interval of the shifts which that test would not reject: the two never
  contradict each other.
- Many figures at once are corrected by Benjamini and Hochberg (Journal of the Royal Statistical Society B 57,
  1995): of what is called a difference, the given share is false at most. Where there is none at all, that is
  the chance of calling any. It holds for figures that rise and fall together (Benjamini and Yekutieli, Annals
  of Statistics 29, 2001), as those of one run do.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import comb, erfc, floor, sqrt
from statistics import NormalDist
from typing import Final

from benchmarks.figures.statistics import median

_EXACT: Final = 40


@dataclass(frozen=True, slots=True)
class Shift:
    """By how much the second sample lies elsewhere; the ends are none where there are too few values."""

    middle: float
    low: float | None
    high: float | None


def ratio(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Shift:
    """How many times the first sample the second one is.

    Raises:
        ValueError: a sample is empty, or a value is not over 0.
    """
    if any(value <= 0 for value in (*first, *second)):
        raise ValueError("a ratio is of values over 0")
    pairs = sorted(after / before for before in first for after in second)
    return _shift(pairs, len(first), len(second), confidence)


def difference(first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95) -> Shift:
    """How much more the second sample is than the first.

    Raises:
        ValueError: a sample is empty.
    """
    pairs = sorted(after - before for before in first for after in second)
    return _shift(pairs, len(first), len(second), confidence)


def p_value(first: Sequence[float], second: Sequence[float]) -> float:
    """The chance of samples at least as far apart, were both drawn from one distribution; two-sided."""
    return min(1.0, 2 * min(p_more(first, second), p_more(second, first)))


def p_more(first: Sequence[float], second: Sequence[float]) -> float:
    """The chance that the second sample's ranks come out as high as they did, or higher.

    Raises:
        ValueError: a sample is empty.
    """
    if not first or not second:
        raise ValueError("two samples are compared, and one is empty")
    ordered = sorted([*first, *second])
    rank_sum = sum(_double_rank(ordered, value) for value in second)
    if len(ordered) > _EXACT:
        return _p_normal(ordered, len(second), rank_sum)
    ranks = tuple(_double_rank(ordered, value) for value in ordered)
    sums, chances = _null_distribution(ranks, len(second))
    return 1.0 - chances[place - 1] if (place := bisect_left(sums, rank_sum)) else 1.0


def least_p(first: int, second: int) -> float:
    """The smallest `p_value` that samples of so many values can have."""
    return min(1.0, 2 / comb(first + second, first))


def corrected(chances: Sequence[float]) -> list[float]:
    """The p-values of many tests, each raised so that it can be held to the level as if it were alone."""
    order = sorted(range(len(chances)), key=chances.__getitem__, reverse=True)
    found, least = [0.0] * len(chances), 1.0
    for rank, index in zip(range(len(chances), 0, -1), order, strict=True):
        least = min(least, max(chances[index] * len(chances) / rank, chances[index]))  # rounding lowers none
        found[index] = least
    return found


def _double_rank(ordered: Sequence[float], value: float) -> int:
    """Twice the mid-rank of a value: a whole number."""
    return bisect_left(ordered, value) + bisect_right(ordered, value) + 1


@lru_cache(maxsize=256)
def _null_distribution(ranks: tuple[int, ...], size: int) -> tuple[list[int], list[float]]:
    """All sums of so many of the ranks in order, and for each the chance of it or less."""
    ways: list[Counter[int]] = [Counter({0: 1}), *(Counter[int]() for _ in range(size))]
    for rank in ranks:
        for chosen in range(size, 0, -1):
            for total, count in ways[chosen - 1].items():
                ways[chosen][total + rank] += count
    sums = sorted(ways[size])
    every = comb(len(ranks), size)
    return sums, [count / every for count in accumulate(ways[size][total] for total in sums)]


def _p_normal(ordered: Sequence[float], size: int, rank_sum: int) -> float:
    count = len(ordered)
    other = count - size
    ties = sum(tied**3 - tied for tied in Counter(ordered).values())
    variance = size * other / 12 * (count + 1 - ties / (count * (count - 1)))
    if variance <= 0:
        return 1.0
    above = rank_sum / 2 - size * (count + 1) / 2 - 0.5
    return 0.5 * erfc(above / sqrt(2 * variance))


def _shift(pairs: Sequence[float], first: int, second: int, confidence: float) -> Shift:
    """`pairs` in order: the interval leaves out as many at each end as the test may reject."""
    outside = _outside(first, second, (1 - confidence) / 2)
    if outside < 0:
        return Shift(median(pairs), None, None)
    return Shift(median(pairs), pairs[outside], pairs[-1 - outside])


@lru_cache(maxsize=256)
def _outside(first: int, second: int, tail: float) -> int:
    """The greatest U whose chance, or that of a lesser one, is within the tail; -1 where there is none."""
    if first + second > _EXACT:
        mean, deviation = first * second / 2, sqrt(first * second * (first + second + 1) / 12)
        return floor(mean + NormalDist().inv_cdf(tail) * deviation - 0.5)
    ranks = tuple(range(2, 2 * (first + second) + 1, 2))
    _, chances = _null_distribution(ranks, second)
    return bisect_right(chances, tail) - 1
