"""The result of `porten-bench policy`.

Owns the bounds that a decision is to keep, and which figures are told: microseconds of processor time.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks.figures.bounds import RATIO, Bound, Figure
from benchmarks.figures.statistics import Interval, bootstrap_median
from benchmarks.policy.decision import DecisionCase, Times
from benchmarks.policy.measuring import PolicyResult
from benchmarks.policy.plots import plots
from benchmarks.reports.result import Group, Made, Result, group

DECISION_P99_US: Final = Bound(100.0)
FORBIDDEN_RATIO: Final = Bound(1.25)
"""What a decision may take longer for all the nodes that the key may not use: nothing, and some noise."""


def report(found: PolicyResult, made: Made) -> Result:
    """The result as it is shown and written."""
    groups = _groups(found)
    return Result(
        benchmark="policy",
        made=made,
        settings=msgspec.to_builtins(found.plan),
        groups=groups,
        plots=plots(groups, found.cases),
        interrupted=found.interrupted,
    )


def _groups(found: PolicyResult) -> list[Group]:
    if not found.cases:
        return []
    title = f"A decision; {found.plan.models} models on each node"
    every = [figure for case in found.cases for figure in _of_case(case)]
    return [group("Decisions against their bounds", decision_figures(found)), group(title, every)]


def decision_figures(found: PolicyResult) -> list[Figure]:
    """What is to be kept: the time of a decision on each fleet, and that forbidden nodes cost nothing."""
    figures = [
        Figure(
            key=f"decision/{case.key}/hot_p99_us",
            name=f"p99, {case.size}",
            unit="us",
            found=_over_rounds(case.hot, _p99),
            bound=DECISION_P99_US,
        )
        for case in found.cases
    ]
    alike = [case for case in found.cases if case.size.permitted == found.cases[0].size.permitted]
    if len(alike) > 1:
        figures.append(_forbidden(alike[0], alike[-1]))
    return figures


def _forbidden(few: DecisionCase, many: DecisionCase) -> Figure:
    pairs = zip(many.hot, few.hot, strict=True)
    return Figure(
        key="decision/forbidden_ratio",
        name=f"p50, {many.size} / none",
        unit=RATIO,
        found=bootstrap_median([after.p50 / before.p50 for after, before in pairs], seed=0),
        bound=FORBIDDEN_RATIO,
    )


def _of_case(case: DecisionCase) -> list[Figure]:
    kinds = (
        ("hot", "hot model", case.hot),
        ("mixed", "all models", case.mixed),
        ("place", "taking a place", case.places),
    )
    figures = []
    for key, name, times in kinds:
        for which, of in (("p50", _p50), ("p99", _p99)):
            if (key, which) == ("hot", "p99"):
                continue  # it has a bound, and stands with those
            figures.append(
                Figure(
                    key=f"decision/{case.key}/{key}_{which}_us",
                    name=f"{name}, {which}, {case.size}",
                    unit="us",
                    found=_over_rounds(times, of),
                )
            )
    return figures


def _over_rounds(times: Sequence[Times], of: Callable[[Times], float]) -> Interval:
    return bootstrap_median([of(each) for each in times], seed=0)


def _p50(times: Times) -> float:
    return times.p50


def _p99(times: Times) -> float:
    return times.p99
