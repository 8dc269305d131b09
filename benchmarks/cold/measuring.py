"""What a load takes: `porten-bench cold-load` with its two parts, each on a daemon of its own.

Owns the plan and the order. How a part is measured is the matter of `benchmarks.cold_load` and
`benchmarks.swap`.
"""

import asyncio
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from benchmarks.cold.loads import UNLOAD_AT_ONCE, ColdLoad, ColdTurns, compare_cold_loads
from benchmarks.cold.swap import measure_swaps, swap_settings
from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.local_node import run_local_node

_PROMPT_TOKENS: Final = 32
_OUTPUT_TOKENS: Final = 8


class Part(StrEnum):
    """What can be measured by itself."""

    COLD = "cold"
    SWAP = "swap"


@dataclass(frozen=True, slots=True)
class ColdPlan:
    """Everything that decides a measurement.

    Attributes:
        rounds: pairs of cold starts.
        swaps: from one model to the other.
        seed: decides the prompts.
    """

    choice: EngineChoice
    parts: frozenset[Part] = frozenset(Part)
    rounds: int = 10
    swaps: int = 20
    seed: int = 0

    def quick(self) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        return replace(self, rounds=1, swaps=2)

    @property
    def workload(self) -> Workload:
        """Short answers: it is their first token that counts."""
        return Workload(Fixed(_PROMPT_TOKENS), Fixed(_OUTPUT_TOKENS), seed=self.seed)


@dataclass(slots=True)
class ColdResult:
    """What came of each part; what was not run, or not come to, is empty.

    Attributes:
        swaps_s: seconds from each request to its first token.
    """

    plan: ColdPlan
    cold: ColdLoad | None = None
    swaps_s: tuple[float, ...] = ()
    interrupted: bool = False


async def run_cold_load(plan: ColdPlan, *, stop: asyncio.Event, progress: Progress) -> ColdResult:
    """Measure as planned. Setting `stop` ends it after the start that is under way.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    result = ColdResult(plan)
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as name:
        directory = Path(name)
        bare = plan.choice.bare(directory)
        if Part.COLD in plan.parts:
            result.cold = await _cold(plan, bare, directory, stop, progress)
        if Part.SWAP in plan.parts and not stop.is_set():
            result.swaps_s = await _swaps(plan, bare, directory, stop, progress)
    result.interrupted = stop.is_set()
    return result


async def _cold(
    plan: ColdPlan, bare: BareEngine, directory: Path, stop: asyncio.Event, progress: Progress
) -> ColdLoad | None:
    progress.phase("Starting a node", Limit(requests=1))
    settings = plan.choice.settings() | UNLOAD_AT_ONCE
    async with run_local_node(directory / "cold", plan.choice.data, **settings) as node:
        via = node.target(plan.choice.model)
        turns = ColdTurns(bare, node.pid, via, plan.workload, progress)
        return await compare_cold_loads(turns, rounds=plan.rounds, stop=stop)


async def _swaps(
    plan: ColdPlan, bare: BareEngine, directory: Path, stop: asyncio.Event, progress: Progress
) -> tuple[float, ...]:
    progress.phase("Starting a node with room for one of two models", Limit(requests=1))
    settings = swap_settings(bare, directory)
    async with run_local_node(directory / "swap", plan.choice.data, **settings) as node:
        return await measure_swaps(node, plan.workload, count=plan.swaps, stop=stop, progress=progress)
