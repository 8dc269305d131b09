"""The policy benchmark: one fleet after the other, and one result for all of them.

Owns the small plan and the processes. How a decision is timed is `benchmarks.policy.decision`'s matter.
Must not know the command line or how results are shown.
"""

import asyncio
from dataclasses import dataclass, field

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.machine.worker import worker
from benchmarks.policy.decision import DecisionCase, DecisionPlan, FleetSize, measure
from benchmarks.stopping import unless


def quick_plan(seed: int) -> DecisionPlan:
    """Small enough for a minute: shows that it works, no more."""
    fleets = (FleetSize(100), FleetSize(500), FleetSize(100, 900))
    return DecisionPlan(fleets=fleets, models=20, decisions=500, rounds=2, seed=seed)


@dataclass(slots=True)
class PolicyResult:
    """What came of each fleet that was come to.

    Attributes:
        interrupted: it was stopped before its end.
    """

    plan: DecisionPlan
    cases: list[DecisionCase] = field(default_factory=list)
    interrupted: bool = False


async def run_policy(plan: DecisionPlan, *, stop: asyncio.Event, progress: Progress) -> PolicyResult:
    """Measure as planned. Setting ``stop`` ends it and keeps the fleets that were done by then.

    Each fleet has a process of its own: the memory of one is not the next one's.
    """
    result = PolicyResult(plan)
    result.interrupted = not await unless(stop, _decide(result, progress))
    return result


async def _decide(result: PolicyResult, progress: Progress) -> None:
    plan = result.plan
    progress.phase("Decisions", Limit())
    for number, size in enumerate(plan.fleets):
        progress.reached(number, len(plan.fleets), f"fleets; now {size}")
        async with worker() as process:
            result.cases.append(await process.do(_measure, plan, size))


def _measure(plan: DecisionPlan, size: FleetSize) -> DecisionCase:
    return asyncio.run(measure(plan, size))
