"""What the whole Hub costs with everything on: limits, policy, choice, ticket, metering and receipt.

Owns the plan and the order of its parts. Requests and streams go through a Hub, a node's relay and a scripted
engine, each a process of its own, in turns with the engine by itself; the key has every kind of limit. How
results are shown is `benchmarks.hub.report`'s matter.
"""

import asyncio
import tempfile
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, Self

from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.generator.loads import Limit
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.hub.memory import HubMemory, measure_memory
from benchmarks.machine.processes import ProcessFailed
from benchmarks.overhead.comparing import ComparePlan, Comparison, compare, streams
from benchmarks.stopping import IN_GOOD_ORDER_S, unless
from benchmarks.tunnel.relay import RelayLevel, RelayRounds, StreamLoad
from benchmarks.tunnel.stack import RelayStack, run_relay_stack

_PROMPT_TOKENS: Final = 32
_ONE: Final = 1
"""Token of an answer that is not streamed."""
_STREAMS: Final = StreamLoad(256, 5, chunks=400)


class Part(StrEnum):
    """What can be measured by itself."""

    REQUESTS = "requests"
    CHUNKS = "chunks"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class HubPlan:
    """Everything that decides a measurement.

    Attributes:
        rounds: pairs of runs.
        concurrency: requests at once that are not streamed.
        requests: in each of their runs.
        streams: the load whose chunks are counted.
        nodes: connected while memory is read.
        settle_s: seconds in which they report before; each does so every five seconds at least.
        seed: decides the prompts.
    """

    parts: frozenset[Part] = frozenset(Part)
    rounds: int = 9
    concurrency: int = 64
    requests: int = 10_000
    streams: StreamLoad = _STREAMS
    nodes: int = 1000
    settle_s: float = 15.0
    seed: int = 0

    def quick(self) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        streams = StreamLoad(16, 5, chunks=50)
        return replace(self, rounds=1, concurrency=8, requests=400, streams=streams, nodes=20, settle_s=0.5)

    @property
    def interval_ms(self) -> int:
        """The pace of the engine's chunks."""
        return self.streams.interval_ms


@dataclass(slots=True)
class HubResult:
    """What came of each part; what was not run, or not come to, is empty."""

    plan: HubPlan
    requests: Comparison | None = None
    chunks: RelayLevel | None = None
    memory: HubMemory | None = None
    interrupted: bool = False


async def run_hub(plan: HubPlan, *, stop: asyncio.Event, progress: Progress) -> HubResult:
    """Measure as planned. Setting `stop` ends it early and keeps the complete rounds.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    result = HubResult(plan)
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as name:
        try:
            work = _measure(result, Path(name), stop, progress)
            ended = await unless(stop, work, grace_s=IN_GOOD_ORDER_S)
        except ProcessFailed as failed:
            raise BenchmarkError(str(failed)) from failed
    result.interrupted = not ended
    return result


async def _measure(result: HubResult, directory: Path, stop: asyncio.Event, progress: Progress) -> None:
    plan = result.plan
    if plan.parts & {Part.REQUESTS, Part.CHUNKS}:
        (directory / "relay").mkdir()
        progress.phase("Starting Hub, node and engine", Limit(requests=1))
        async with run_relay_stack(directory / "relay", [plan.interval_ms]) as stack:
            if Part.REQUESTS in plan.parts:
                result.requests = await _requests(plan, stack, stop, progress)
            if Part.CHUNKS in plan.parts and not stop.is_set():
                turns = RelayRounds(stack, rounds=plan.rounds, seed=plan.seed, stop=stop, progress=progress)
                result.chunks = await turns.measure(plan.streams)
    if Part.MEMORY in plan.parts and not stop.is_set():
        (directory / "fleet").mkdir()
        result.memory = await measure_memory(directory / "fleet", plan.nodes, plan.settle_s, progress)


async def _requests(plan: HubPlan, stack: RelayStack, stop: asyncio.Event, progress: Progress) -> Comparison:
    workload = Workload(Fixed(_PROMPT_TOKENS), Fixed(_ONE), seed=plan.seed)
    load = streams(workload, plan.concurrency, requests=plan.requests, stream=False)
    return await compare(
        stack.sides(plan.interval_ms),
        ComparePlan((load,), rounds=plan.rounds, seed=plan.seed),
        progress=progress,
        stop=stop,
    )
