"""`porten-bench overhead` with everything started here: which sides, under which loads.

Owns the plan and what of it this machine allows. Must not know the command line or how results are shown.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.generator.loads import Limit
from benchmarks.generator.workloads import Distribution, Fixed, Workload
from benchmarks.machine.processes import ProcessFailed
from benchmarks.overhead.comparing import ComparePlan, Comparison, compare, streams
from benchmarks.overhead.peers import Peer
from benchmarks.overhead.sides import (
    INTERVAL_MS,
    EngineAtWork,
    all_sides,
    folder,
    real_engine,
    scripted_engine,
)
from benchmarks.overhead.turns import Load
from benchmarks.stacks.engine_choice import EngineChoice

_PROMPT_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class ScriptedLoads:
    """What is asked of the scripted engine, whose answers cost next to nothing.

    Attributes:
        at_once: requests that are not streamed, at a time; so many of them make a run.
        one_by_one: short streamed answers, one after the other.
        streams: long streamed answers at a time, each of so many chunks.
    """

    at_once: int = 32
    requests: int = 1000
    one_by_one: int = 100
    streams: int = 64
    chunks: int = 200

    def loads(self, seed: int) -> tuple[Load, ...]:
        """The loads, one after the other."""
        one, many = (Workload(Fixed(_PROMPT_TOKENS), Fixed(count), seed=seed) for count in (1, self.chunks))
        whole = f"Answers in one piece, {self.at_once} at once"
        paced = f"{self.streams} streams with a chunk every {INTERVAL_MS} ms"
        return (
            Load("requests", whole, self.at_once, self.requests, one, stream=False),
            Load("one_by_one", "Streams of one chunk, one by one", 1, self.one_by_one, one),
            Load("streams", paced, self.streams, self.streams, many),
        )


@dataclass(frozen=True, slots=True)
class RealLoads:
    """What is asked of a real engine: so many streams at once, two answers of each."""

    choice: EngineChoice
    concurrency: tuple[int, ...]
    prompt_tokens: Distribution
    output_tokens: Distribution

    def loads(self, seed: int) -> tuple[Load, ...]:
        """The loads, one after the other."""
        workload = Workload(self.prompt_tokens, self.output_tokens, seed=seed)
        return tuple(streams(workload, count) for count in self.concurrency)


@dataclass(frozen=True, slots=True)
class OverheadPlan:
    """Everything that decides a measurement.

    Attributes:
        asked: decides the engine too.
        peers: those that are to be measured; one that is not here is left out, and said.
        rounds: turns of each side at each load.
    """

    asked: ScriptedLoads | RealLoads = ScriptedLoads()
    peers: tuple[Peer, ...] = ()
    rounds: int = 10
    seed: int = 0

    def quick(self) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        asked = self.asked
        if isinstance(asked, RealLoads):
            asked = replace(asked, concurrency=asked.concurrency[:1], output_tokens=Fixed(8))
        else:
            asked = replace(asked, requests=200, one_by_one=20, streams=16, chunks=40)
        return replace(self, asked=asked, rounds=2)

    def compare_plan(self) -> ComparePlan:
        """What every side is put through."""
        return ComparePlan(self.asked.loads(self.seed), self.rounds, self.seed)


@dataclass(frozen=True, slots=True)
class OverheadResult:
    """What came of a plan, and which peers were not here, each with the remedy."""

    plan: OverheadPlan
    comparison: Comparison
    absent: dict[str, str]


async def run_overhead(plan: OverheadPlan, *, stop: asyncio.Event, progress: Progress) -> OverheadResult:
    """Start everything, measure as planned, end everything. Setting ``stop`` keeps the complete rounds.

    Raises:
        BenchmarkError: something cannot be started or measured.
    """
    absent = {peer.name: why for peer in plan.peers if (why := peer.missing())}
    present = [peer for peer in plan.peers if peer.name not in absent]
    wanted = plan.compare_plan()
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as name:
        try:
            found = await _measure(plan, wanted, present, Path(name), stop=stop, progress=progress)
        except ProcessFailed as failed:
            raise BenchmarkError(str(failed)) from failed
    return OverheadResult(plan, found, absent)


async def _measure(
    plan: OverheadPlan,
    wanted: ComparePlan,
    peers: Sequence[Peer],
    directory: Path,
    *,
    stop: asyncio.Event,
    progress: Progress,
) -> Comparison:
    names = ["an engine", "a node", "a Hub", *(peer.name for peer in peers)]
    progress.phase(f"Starting {', '.join(names)}", Limit(requests=1))
    async with (
        _engine(plan, folder(directory, "engine")) as engine,
        all_sides(engine, peers, directory) as sides,
    ):
        return await compare(sides, wanted, progress=progress, stop=stop)


@asynccontextmanager
async def _engine(plan: OverheadPlan, directory: Path) -> AsyncIterator[EngineAtWork]:
    asked = plan.asked
    if isinstance(asked, ScriptedLoads):
        async with scripted_engine(directory) as engine:
            yield engine
    else:
        async with real_engine(asked.choice, max(asked.concurrency), directory) as engine:
            yield engine
