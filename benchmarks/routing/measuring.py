"""The routing benchmark: which parts are run with which settings, and one result for all of it.

Owns the plan and the order of its parts. How a decision is timed is `routing_decision`'s matter, how a
fleet is simulated `routing_simulation`'s. Must not know the command line or how results are shown.
"""

import asyncio
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from multiprocessing import get_context
from typing import Self

from benchmarks.command.progress import Progress
from benchmarks.generator.load import Limit
from benchmarks.routing.decision import DecisionCase, DecisionPlan, FleetSize, measure
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import Outcome, SimulationPlan, simulate


class Part(StrEnum):
    """What can be measured by itself."""

    DECISION = "decision"
    SIMULATION = "simulation"


@dataclass(frozen=True, slots=True)
class RoutingPlan:
    """Everything that decides a measurement.

    Attributes:
        parts: which are run.
        traces: how many are simulated, each with its own seed.
        seed: of the first trace, and of the fleets that are decided about.
    """

    parts: frozenset[Part] = frozenset(Part)
    traces: int = 5
    seed: int = 0
    simulation: SimulationPlan = field(default_factory=SimulationPlan)
    decision: DecisionPlan = field(default_factory=DecisionPlan)

    @classmethod
    def quick(cls, parts: frozenset[Part], seed: int) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        return cls(
            parts=parts,
            traces=2,
            seed=seed,
            simulation=SimulationPlan(nodes=200, models=20, seconds=30),
            decision=DecisionPlan(
                fleets=(FleetSize(100), FleetSize(500), FleetSize(100, 900)),
                models=20,
                decisions=500,
                rounds=2,
            ),
        )


@dataclass(slots=True)
class RoutingResult:
    """What came of each part; what was not run, or not come to, is empty.

    Attributes:
        traces: the outcome of each rule, trace by trace.
        interrupted: it was stopped before its end.
    """

    plan: RoutingPlan
    cases: list[DecisionCase] = field(default_factory=list)
    traces: list[dict[RuleName, Outcome]] = field(default_factory=list)
    interrupted: bool = False


async def run_routing(plan: RoutingPlan, *, stop: asyncio.Event, progress: Progress) -> RoutingResult:
    """Measure as planned. Setting ``stop`` ends it after what is under way, and keeps that."""
    result = RoutingResult(plan)
    if Part.DECISION in plan.parts:
        await _decide(result, stop, progress)
    if Part.SIMULATION in plan.parts:
        await _simulate(result, stop, progress)
    return result


async def _decide(result: RoutingResult, stop: asyncio.Event, progress: Progress) -> None:
    """One fleet after the other, each in a process of its own: the memory of one is not the next one's."""
    plan = replace(result.plan.decision, seed=result.plan.seed)
    progress.phase("decisions", Limit())
    for number, size in enumerate(plan.fleets):
        if stop.is_set():
            result.interrupted = True
            return
        progress.reached(number, len(plan.fleets), "fleets")
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
            loop = asyncio.get_running_loop()
            result.cases.append(await loop.run_in_executor(process, _measure, plan, size))


def _measure(plan: DecisionPlan, size: FleetSize) -> DecisionCase:
    return asyncio.run(measure(plan, size))


async def _simulate(result: RoutingResult, stop: asyncio.Event, progress: Progress) -> None:
    """Every rule on every trace."""
    plan, done = result.plan, 0
    progress.phase("simulations", Limit())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        loop = asyncio.get_running_loop()
        for trace in range(plan.traces):
            outcomes: dict[RuleName, Outcome] = {}
            for rule in RuleName:
                if stop.is_set():
                    result.interrupted = True
                    return
                progress.reached(done, plan.traces * len(RuleName), "simulations")
                work = loop.run_in_executor(process, simulate, plan.simulation, rule, plan.seed + trace)
                outcomes[rule] = await work
                done += 1
            result.traces.append(outcomes)
