"""The routing benchmark: every rule of selection on every trace, and one result for all of it.

Owns the plan and the order. How a fleet is simulated is `benchmarks.routing.simulation`'s matter. Must not
know the command line or how results are shown.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Self

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import Outcome, SimulationPlan, simulate


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
    """Measure as planned. Setting ``stop`` ends it after the simulation under way; whole traces are kept."""
    result, done = RoutingResult(plan), 0
    progress.phase("Simulations", Limit())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        loop = asyncio.get_running_loop()
        for trace in range(plan.traces):
            outcomes: dict[RuleName, Outcome] = {}
            for rule in RuleName:
                if stop.is_set():
                    result.interrupted = True
                    return result
                progress.reached(done, plan.traces * len(RuleName), f"simulations; now {rule.value}")
                work = loop.run_in_executor(process, simulate, plan.simulation, rule, plan.seed + trace)
                outcomes[rule] = await work
                done += 1
            result.traces.append(outcomes)
    return result
