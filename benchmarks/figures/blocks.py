"""Intervals for the figures of one run, whose requests are not independent of each other.

Pure. Successive requests share the server's batch, its queue and its caches, so that resampling them one by
one would give intervals that are too narrow. The run is cut into blocks of equal time instead, and whole
blocks are drawn with replacement: the block bootstrap of Carlstein ("The use of subseries values for
estimating the variance of a general statistic from a stationary sequence", Annals of Statistics 14, 1986)
with the percentile interval of Efron. How many blocks: Schmeiser ("Batch size effects in the analysis of
simulation output", Operations Research 30, 1982) finds that more than 30 gain nothing, and fewer than 10
lose something.

All requests of a block stay together, and all tokens of a request: what depends on each other is drawn
together.
"""

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from benchmarks.figures.statistics import Interval, percentile, percentiles

LEAST_BLOCKS: Final = 5
MOST_BLOCKS: Final = 30
_GRID: Final = 2000
"""Ranks among which a drawn percentile is looked for; the uppermost are all there."""

Block = Sequence[float]


@dataclass(frozen=True, slots=True)
class Draws:
    """Which blocks were drawn, the same for every figure of a run.

    Attributes:
        counts: for each draw, how often each block is in it.
        confidence: of the intervals, 0 to 1.
    """

    counts: tuple[tuple[int, ...], ...]
    confidence: float


def draw(blocks: int, *, seed: int, draws: int = 1000, confidence: float = 0.95) -> Draws:
    """Draw as many blocks as there are, with replacement, again and again."""
    chance = random.Random(f"{seed}/blocks")  # noqa: S311 - resampling, not secrecy
    numbers = range(blocks)
    drawn = (Counter(chance.choices(numbers, k=blocks)) for _ in range(draws))
    return Draws(tuple(tuple(counter[number] for number in numbers) for counter in drawn), confidence)


def ratio_interval(amounts: Sequence[float], sizes: Sequence[float], draws: Draws) -> Interval | None:
    """The sum of the amounts over the sum of the sizes: a mean, a rate, a share.

    Args:
        amounts: one of each block, such as its output tokens.
        sizes: one of each block, such as its seconds, or how many samples it holds.
        draws: of these blocks.

    Returns:
        None where too few blocks hold anything.
    """
    values = [amount / size for amount, size in zip(amounts, sizes, strict=True) if size > 0]
    if len(values) < LEAST_BLOCKS:
        return None
    drawn = []
    for counts in draws.counts:
        size = sum(map(mul, counts, sizes))
        if size > 0:
            drawn.append(sum(map(mul, counts, amounts)) / size)
    return _interval(sum(amounts) / sum(sizes), values, drawn, draws.confidence)


def mean_interval(blocks: Sequence[Block], draws: Draws) -> Interval | None:
    """The mean of all samples of all blocks; None where too few blocks hold any."""
    return ratio_interval([sum(block) for block in blocks], [len(block) for block in blocks], draws)


def percentile_intervals(
    blocks: Sequence[Block], percents: Sequence[float], draws: Draws
) -> dict[float, Interval]:
    """Percentiles of all samples of all blocks; empty where too few blocks hold any."""
    filled = [block for block in blocks if block]
    if len(filled) < LEAST_BLOCKS:
        return {}
    pooled = sorted(value for block in blocks for value in block)
    found = _Ranks(blocks, pooled)
    of_all = percentiles(pooled, percents)
    of_blocks = zip(*(percentiles(block, percents) for block in filled), strict=True)
    return {
        percent: _interval(
            value, values, [found.percentile(counts, percent) for counts in draws.counts], draws.confidence
        )
        for percent, value, values in zip(percents, of_all, of_blocks, strict=True)
    }


class _Ranks:
    """Where a percentile of drawn blocks lies, without putting their samples together each time."""

    def __init__(self, blocks: Sequence[Block], pooled: Sequence[float]) -> None:
        step = max(1, len(pooled) // _GRID)
        body = pooled[: max(0, len(pooled) - _GRID) : step]
        self._grid = [*body, *pooled[max(0, len(pooled) - _GRID) :]]
        ordered = [sorted(block) for block in blocks]
        self._sizes = [len(block) for block in ordered]
        self._below = [tuple(bisect_right(block, value) for block in ordered) for value in self._grid]

    def percentile(self, counts: Sequence[int], percent: float) -> float:
        position = (sum(map(mul, counts, self._sizes)) - 1) * percent / 100
        rank = int(position) + 1
        here = self._at(counts, rank)
        low = self._grid[here]
        last = here + 1 == len(self._grid) or sum(map(mul, counts, self._below[here])) > rank
        return low if last else low + (self._grid[here + 1] - low) * (position + 1 - rank)

    def _at(self, counts: Sequence[int], rank: int) -> int:
        low, high = 0, len(self._grid) - 1
        while low < high:
            middle = (low + high) // 2
            if sum(map(mul, counts, self._below[middle])) >= rank:
                high = middle
            else:
                low = middle + 1
        return low


def _interval(found: float, values: Sequence[float], drawn: Sequence[float], confidence: float) -> Interval:
    tail = (1 - confidence) / 2 * 100
    low, high = percentile(drawn, tail), percentile(drawn, 100 - tail)
    return Interval(found, min(low, found), max(high, found), confidence, tuple(values))
