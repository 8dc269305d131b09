"""The result of `porten-bench routing`.

Owns which figures are told, in milliseconds of the simulation's own clock.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from benchmarks.figures.bounds import Better, Figure
from benchmarks.figures.statistics import bootstrap_median
from benchmarks.reports.result import Group, Made, Result, group
from benchmarks.routing.measuring import RoutingResult
from benchmarks.routing.plots import plots
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import GOOD_TTFT_S, Outcome


def report(found: RoutingResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan, groups = found.plan, _groups(found)
    return Result(
        benchmark="routing",
        made=made,
        settings={
            "seed": plan.seed,
            "traces": plan.traces,
            "simulation": msgspec.to_builtins(plan.simulation),
        },
        groups=groups,
        plots=plots(groups, found.traces),
        interrupted=found.interrupted,
    )


_OUTCOMES: Final[tuple[tuple[str, str, str, Better, Callable[[Outcome], float]], ...]] = (
    ("ttft_p50_ms", "TTFT p50", "ms", Better.LESS, lambda outcome: outcome.ttft.p50 * 1000),
    ("ttft_p99_ms", "TTFT p99", "ms", Better.LESS, lambda outcome: outcome.ttft.p99 * 1000),
    ("goodput", f"within {GOOD_TTFT_S:g} s", "/s", Better.MORE, lambda outcome: outcome.goodput),
    ("cached_percent", "prompt cached", "%", Better.MORE, lambda outcome: outcome.cached * 100),
)


def _groups(found: RoutingResult) -> list[Group]:
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
