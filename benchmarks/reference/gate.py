"""Whether a ratio has fallen since the committed one: pure.

Only ratios of sides that took turns are judged, never a time: what another machine changes, it changes for
both sides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.errors import BenchmarkError
from benchmarks.figures.bounds import RATIO, Better
from benchmarks.reports.result import Result, Value

MARGIN: Final = 1.5
"""How many times worse a ratio may be. See README.md, "What fails a build": it was chosen from repeats."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One ratio now, and when it was committed.

    Attributes:
        worse: how many times worse it is now; below 1 where it is better.
        surely: how many times worse it is at least, by the better end of its interval.
    """

    key: str
    reference: float
    found: float
    worse: float
    surely: float

    @property
    def has_fallen(self) -> bool:
        """Whether it is worse by more than the margin, its whole interval."""
        return self.surely > MARGIN

    def __str__(self) -> str:
        times = f"{self.worse:.2f} times as bad" if self.worse > 1 else f"{1 / self.worse:.2f} times as good"
        return f"{self.key}: {self.found:.3f} x, was {self.reference:.3f} x: {times}"


def judge(reference: Result, found: Result, keys: Sequence[str]) -> list[Judged]:
    """Each of these ratios, with its sense taken into account.

    Raises:
        BenchmarkError: one of them is missing: then nothing could be said of it.
    """
    before, now = _by_key(reference), _by_key(found)
    return [_judged(key, before.get(key), now.get(key)) for key in keys]


def _by_key(result: Result) -> Mapping[str, Value]:
    return {figure.key: figure for _, figure in result.figures() if figure.unit == RATIO and figure.value}


def _judged(key: str, before: Value | None, now: Value | None) -> Judged:
    if before is None or now is None or not before.value or not now.value:
        missing = "the reference" if before is None else "what was measured now"
        raise BenchmarkError(f"{key} is no ratio in {missing}: make the reference anew with `make bench`")
    was, is_now = before.value, now.value
    if before.better is Better.MORE:
        return Judged(key, was, is_now, was / is_now, was / (now.high or is_now))
    return Judged(key, was, is_now, is_now / was, (now.low or is_now) / was)
