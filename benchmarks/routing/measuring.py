"""The routing benchmark: every rule of selection on every trace, and one result for all of it.

Owns the plan and the order. How a fleet is simulated is `benchmarks.routing.simulation`'s matter. Must not
know the command line or how results are shown.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Self

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.machine.worker import worker
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import Outcome, SimulationPlan, simulate
from benchmarks.stopping import unless


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Everything that decides a measurement.

    Attributes:
        traces: how many are simulated, each with its own seed.
        seed: of the first trace.
    """

    traces: int = 5
    seed: int = 0
    simulation: SimulationPlan = field(default_factory=SimulationPlan)

    @classmethod
    def quick(cls, seed: int) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        return cls(traces=2, seed=seed, simulation=SimulationPlan(nodes=200, models=20, seconds=30))


@dataclass(slots=True)
class RoutingResult:
    """What came of the traces that were come to.

    Attributes:
        traces: the outcome of each rule, trace by trace.
        interrupted: it was stopped before its end.
    """

    plan: RoutingPlan
    traces: list[dict[RuleName, Outcome]] = field(default_factory=list)
    interrupted: bool = False


async def run_routing(plan: RoutingPlan, *, stop: asyncio.Event, progress: Progress) -> RoutingResult:
    """Measure as planned. Setting ``stop`` ends it; whole traces are kept."""
    result = RoutingResult(plan)
    result.interrupted = not await unless(stop, _simulate(result, progress))
    return result


async def _simulate(result: RoutingResult, progress: Progress) -> None:
    plan, rules = result.plan, tuple(RuleName)
    progress.phase("Simulations", Limit())
    async with worker() as process:
        for trace in range(plan.traces):
            outcomes: dict[RuleName, Outcome] = {}
            for place, rule in enumerate(rules, trace * len(rules)):
                progress.reached(place, plan.traces * len(rules), f"simulations; now {rule.value}")
                outcomes[rule] = await process.do(simulate, plan.simulation, rule, plan.seed + trace)
            result.traces.append(outcomes)
