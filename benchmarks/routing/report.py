"""The result of `porten-bench routing`.

Owns the bounds that a decision is to keep, and which figures are told. Decisions are told in microseconds of
processor time, what is simulated in milliseconds of the simulation's own clock.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks.figures.bounds import RATIO, Better, Bound, Figure
from benchmarks.figures.statistics import Interval, bootstrap_median
from benchmarks.reports.result import Group, Made, Result, group
from benchmarks.routing.decision import DecisionCase, FleetSize, Times
from benchmarks.routing.measuring import RoutingResult
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import GOOD_TTFT_S, Outcome

DECISION_P99_US: Final = Bound(100.0)
FORBIDDEN_RATIO: Final = Bound(1.25)
"""What a decision may take longer for all the nodes that the key may not use: nothing, and some noise."""


def report(found: RoutingResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan = found.plan
    return Result(
        benchmark="routing",
        made=made,
        settings={
            "parts": sorted(plan.parts),
            "seed": plan.seed,
            "traces": plan.traces,
            "decision": msgspec.to_builtins(plan.decision),
            "simulation": msgspec.to_builtins(plan.simulation),
        },
        groups=[*_decisions(found), *_simulations(found)],
        interrupted=found.interrupted,
    )


# --- decisions


def _decisions(found: RoutingResult) -> list[Group]:
    if not found.cases:
        return []
    title = f"A decision; {found.plan.decision.models} models on each node"
    every = [figure for case in found.cases for figure in _of_case(case)]
    return [group("Decisions against their bounds", decision_figures(found)), group(title, every)]


def decision_figures(found: RoutingResult) -> list[Figure]:
    """What is to be kept: the time of a decision on each fleet, and that forbidden nodes cost nothing."""
    figures = [
        Figure(
            key=f"decision/{_key(case.size)}/hot_p99_us",
            name=f"p99, {_size(case.size)}",
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
        name=f"p50, {_size(many.size)} / none",
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
                    key=f"decision/{_key(case.size)}/{key}_{which}_us",
                    name=f"{name}, {which}, {_size(case.size)}",
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


def _size(size: FleetSize) -> str:
    others = f", {size.forbidden:,} forbidden" if size.forbidden else ""
    return f"{size.permitted:,} nodes{others}"


def _key(size: FleetSize) -> str:
    return f"{size.permitted}+{size.forbidden}"


# --- simulations

_OUTCOMES: Final[tuple[tuple[str, str, str, Better, Callable[[Outcome], float]], ...]] = (
    ("ttft_p50_ms", "TTFT p50", "ms", Better.LESS, lambda outcome: outcome.ttft.p50 * 1000),
    ("ttft_p99_ms", "TTFT p99", "ms", Better.LESS, lambda outcome: outcome.ttft.p99 * 1000),
    ("goodput", f"within {GOOD_TTFT_S:g} s", "/s", Better.MORE, lambda outcome: outcome.goodput),
    ("cached_percent", "prompt cached", "%", Better.MORE, lambda outcome: outcome.cached * 100),
)


def _simulations(found: RoutingResult) -> list[Group]:
    if not found.traces:
        return []
    plan = found.plan.simulation
    fleet = f"{plan.nodes:,} nodes, {plan.models} models, {_hubs(plan.hubs)}, {len(found.traces)} traces"
    return [
        group(f"{rule.value}: {fleet}", _of_rule(rule, [outcomes[rule] for outcomes in found.traces]))
        for rule in RuleName
    ]


def _of_rule(rule: RuleName, outcomes: Sequence[Outcome]) -> list[Figure]:
    return [
        Figure(
            key=f"simulation/{rule.value}/{key}",
            name=name,
            unit=unit,
            found=bootstrap_median([of(outcome) for outcome in outcomes], seed=0),
            which_is_better=better,
        )
        for key, name, unit, better, of in _OUTCOMES
    ]


def _hubs(count: int) -> str:
    return "1 Hub" if count == 1 else f"{count} Hubs"
