"""Two results of one benchmark side by side: which of their figures differ, and which only seem to.

Pure. Owns the verdicts and the document ``porten.compare/1``. The statistics are the matter of
`benchmarks.figures.differences`, how two results came about that of `benchmarks.reports.sameness`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from benchmarks.errors import NotComparable
from benchmarks.figures import differences
from benchmarks.figures.bounds import RATIO, Better
from benchmarks.figures.differences import Shift
from benchmarks.figures.statistics import median
from benchmarks.reports.result import Remark, Result, Value
from benchmarks.reports.sameness import same_machine, unlike

SCHEMA: Final = "porten.compare/1"
LEVEL: Final = 0.05
"""Of the figures that are said to differ, this share does not, at most."""


class Verdict(StrEnum):
    """What two figures of one key say of each other."""

    BETTER = "better"
    WORSE = "worse"
    DIFFERENT = "different"
    SAME = "no difference seen"
    UNTOLD = "cannot be told"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """B against A.

    Attributes:
        unit: ``x``: B is so many times A; anything else: B is so much more than A.
        value: the median over all pairs of their rounds.
        low: lower end of the 95 % interval, of this figure by itself; none where there are too few rounds.
        high: its upper end.
    """

    unit: str
    value: float
    low: float | None = None
    high: float | None = None


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure in both results.

    Attributes:
        rounds: of A and of B.
        p: two-sided; none where no test can be made.
        corrected_p: raised for all the figures that are compared; a difference is real up to 0.05.
        reason: why it cannot be told.
    """

    key: str
    group: str
    name: str
    unit: str
    better: Better
    a: float | None
    b: float | None
    rounds: tuple[int, int]
    change: Change | None = None
    p: float | None = None
    corrected_p: float | None = None
    verdict: Verdict = Verdict.UNTOLD
    reason: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison.

    Attributes:
        margin: a change up to this share is none.
        warnings: what keeps the two from being comparable, and what differs.
        left_out: keys that are not compared, since only ratios are across machines.
        only_a: keys that B has not.
        only_b: keys that A has not.
        refused: one of the two is not to be believed.
    """

    schema: str = SCHEMA
    benchmark: str
    margin: float
    warnings: list[Remark]
    rows: list[Row]
    left_out: list[str]
    only_a: list[str]
    only_b: list[str]
    refused: bool

    def count(self, verdict: Verdict) -> int:
        """How many figures have it."""
        return sum(row.verdict is verdict for row in self.rows)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is compared.

    Attributes:
        margin: a change up to this share is none.
        figures: patterns of keys, as a shell's; all where there are none.
        everything: absolute figures across machines too.
    """

    margin: float = 0.0
    figures: tuple[str, ...] = ()
    everything: bool = False

    def names(self, key: str) -> bool:
        """Whether a figure is asked for."""
        return not self.figures or any(fnmatchcase(key, pattern) for pattern in self.figures)


def compare(first: Result, second: Result, wanted: Wanted) -> Comparison:
    """Lay B beside A.

    Raises:
        NotComparable: they are of two benchmarks, or have no figure in common.
    """
    if first.benchmark != second.benchmark:
        kinds = f"A is of {first.benchmark!r} and B of {second.benchmark!r}"
        raise NotComparable(f"{kinds}: only results of one command can be compared")
    mine, other = (_wanted_figures(each, wanted) for each in (first, second))
    shared = [key for key in mine if key in other]
    apart = not (wanted.everything or same_machine(first, second))
    kept = [key for key in shared if not apart or mine[key][1].unit == RATIO]
    if not kept:
        raise NotComparable(_nothing_left(shared))
    rows = _judged([_row(*mine[key], other[key][1], wanted.margin) for key in kept])
    left_out = [key for key in shared if key not in kept]
    return Comparison(
        benchmark=first.benchmark,
        margin=wanted.margin,
        warnings=[*unlike(first, second), *_left_out(left_out), *_too_few(rows)],
        rows=rows,
        left_out=left_out,
        only_a=[key for key in mine if key not in other],
        only_b=[key for key in other if key not in mine],
        refused=bool(first.refusals or second.refusals),
    )


def _wanted_figures(result: Result, wanted: Wanted) -> dict[str, tuple[str, Value]]:
    return {
        figure.key: (group.title, figure) for group, figure in result.figures() if wanted.names(figure.key)
    }


def _nothing_left(shared: Sequence[str]) -> str:
    if shared:
        return "A and B were made on other machines and share no ratio: compare absolute figures with --all"
    return "A and B have no figure in common: they are of other loads, or nothing matches --figure"


def _row(group: str, mine: Value, other: Value, margin: float) -> Row:
    change, chance, reason = None, None, ""
    if mine.unit != other.unit:
        reason = f"B is in {other.unit or 'no unit'}"
    elif mine.objective and other.objective and mine.objective != other.objective:
        reason = "other objectives"
    elif mine.value is None or other.value is None:
        reason = "nothing measured"
    else:
        first, second = mine.values or [mine.value], other.values or [other.value]
        change, reason = _change(first, second, mine.unit), _why_untold(first, second)
        chance = None if reason else _chance(first, second, change, margin)
    return Row(
        key=mine.key,
        group=group,
        name=mine.name,
        unit=mine.unit,
        better=mine.better,
        a=mine.value,
        b=other.value,
        rounds=(len(mine.values), len(other.values)),
        change=change,
        p=chance,
        reason=reason,
    )


def _change(first: Sequence[float], second: Sequence[float], unit: str) -> Change:
    """As a ratio; what is zero or less somewhere, such as an added time, as a difference in its own unit."""
    is_ratio = min([*first, *second]) > 0
    shift: Shift = (differences.ratio if is_ratio else differences.difference)(first, second)
    return Change(unit=RATIO if is_ratio else unit, value=shift.middle, low=shift.low, high=shift.high)


def _why_untold(first: Sequence[float], second: Sequence[float]) -> str:
    if min(len(first), len(second)) < 2:
        return "single values"
    if differences.least_p(len(first), len(second)) > LEVEL:
        return f"too few rounds, {len(first)} and {len(second)}"
    return ""


def _chance(first: Sequence[float], second: Sequence[float], change: Change, margin: float) -> float:
    """The chance of samples as far apart, were no change beyond the margin: they are moved together by it."""
    if change.unit == RATIO:
        lower, upper = ([value * factor for value in first] for factor in (1 / (1 + margin), 1 + margin))
    else:
        within = margin * abs(median(first))
        lower, upper = ([value + moved for value in first] for moved in (-within, within))
    return min(1.0, 2 * min(differences.p_more(upper, second), differences.p_more(second, lower)))


def _judged(rows: Sequence[Row]) -> list[Row]:
    tested = [row for row in rows if row.p is not None]
    raised = differences.corrected([row.p for row in tested if row.p is not None])
    verdicts = {
        row.key: msgspec.structs.replace(row, corrected_p=chance, verdict=_verdict(row, chance))
        for row, chance in zip(tested, raised, strict=True)
    }
    return [verdicts.get(row.key, row) for row in rows]


def _verdict(row: Row, chance: float) -> Verdict:
    if chance > LEVEL or row.change is None:
        return Verdict.SAME
    if row.better is Better.NEITHER:
        return Verdict.DIFFERENT
    is_more = row.change.value > (1 if row.change.unit == RATIO else 0)
    return Verdict.BETTER if is_more == (row.better is Better.MORE) else Verdict.WORSE


def _left_out(keys: Sequence[str]) -> Iterator[Remark]:
    if keys:
        text = (
            f"{len(keys)} absolute figures are left out: across machines only ratios can be compared (--all)."
        )
        yield Remark(code="left_out", text=text)


def _too_few(rows: Sequence[Row]) -> Iterator[Remark]:
    """Among many figures a lone difference needs more rounds than it would by itself."""
    tested = [row for row in rows if row.p is not None]
    blind = [row for row in tested if differences.least_p(*row.rounds) * len(tested) > LEVEL]
    if blind:
        needed = next(n for n in range(4, 100) if differences.least_p(n, n) * len(tested) <= LEVEL)
        text = (
            f"A difference of one alone of {len(tested)} figures cannot be told from chance where there are "
            f"so few rounds: measure {needed} or more, or ask for fewer figures (--figure)."
        )
        yield Remark(code="few_rounds", text=text)
