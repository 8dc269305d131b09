"""Figures beside the bounds they are to keep: kept, missed, or not to be told from this run.

Pure. Owns the judgement; how a figure was measured or is shown is the matter of others.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from benchmarks.figures.statistics import Interval

RATIO: Final = "x"
"""The unit of what is told as a multiple of the other side."""
_LEAST_ROUNDS: Final = 5


class Verdict(StrEnum):
    """What a figure says of its bound.

    It is unclear where the bound lies within the figure's interval, or the interval is of too few rounds.
    """

    KEPT = "kept"
    MISSED = "missed"
    UNCLEAR = "unclear"


@dataclass(frozen=True, slots=True)
class Bound:
    """The most a figure may be, or with `at_least` the least, in the figure's own unit."""

    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def judge(self, found: Interval | float) -> Verdict:
        """Whether the bound is kept; an interval must lie wholly on one side of it."""
        if isinstance(found, Interval) and found.count < _LEAST_ROUNDS:
            return Verdict.UNCLEAR
        low, high = (found.low, found.high) if isinstance(found, Interval) else (found, found)
        ends = {self._keeps(low), self._keeps(high)}
        if len(ends) == 2:
            return Verdict.UNCLEAR
        return Verdict.KEPT if True in ends else Verdict.MISSED

    def _keeps(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit


class Better(StrEnum):
    """Which way a figure is better; neither where it only describes."""

    LESS = "less"
    MORE = "more"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One measured figure, with its bound where it is to keep one.

    Attributes:
        key: what programs call it, stable from run to run and unique within a result, such as
            ``relay/256x5ms/hub_cpu``: by it results are compared.
        name: what people call it, within its group.
        unit: of the value and of the bound.
        found: none where nothing could be measured.
        bound: what it is to keep.
        which_is_better: where no bound says it.
        direct: what the other side reached, in words; empty where there is none.
        via: what the measured side reached, in words.
        objective: what it counts as good, where it counts that: under another it is another figure.
    """

    key: str
    name: str
    unit: str
    found: Interval | float | None
    bound: Bound | None = None
    which_is_better: Better = Better.LESS
    direct: str = ""
    via: str = ""
    objective: str = ""

    @property
    def better(self) -> Better:
        """Which way it is better."""
        if self.bound is None:
            return self.which_is_better
        return Better.MORE if self.bound.at_least else Better.LESS

    @property
    def verdict(self) -> Verdict | None:
        """What it says of its bound; none where nothing was measured, or nothing is to be kept."""
        return None if self.found is None or self.bound is None else self.bound.judge(self.found)


def scaled(interval: Interval | None, factor: float) -> Interval | None:
    """The same interval in another unit."""
    return None if interval is None else interval.scaled(factor)
