"""What a node's daemon costs: its local API against the engine's own port, and the daemon doing nothing.

Owns the plan, the engine's options, and which figures are held to which bounds. How a comparison is made is
`benchmarks.overhead.comparing`'s matter; how results are shown, `benchmarks.node.report`'s.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import consumed, read_cpu
from benchmarks.overhead.comparing import ComparePlan, Comparison, compare, streams
from benchmarks.overhead.turns import Load, Side
from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.engine_choice import EngineChoice
from benchmarks.stacks.local_node import LocalNode, engine_settings, run_local_node
from runtime.backends.base import EngineOptions
from runtime.devices import usable_threads

_PROMPT_TOKENS: Final = 32
_OUTPUT_TOKENS: Final = 64
_CONTEXT_LENGTH: Final = 1024
_MOST_SETTLE_S: Final = 5.0


def engine_threads() -> tuple[int, ...]:
    """The engine on every core, and with one left free."""
    cores = usable_threads()
    return (cores, cores - 1) if cores > 1 else (1,)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """Everything that decides a measurement.

    Attributes:
        threads: CPU threads of the engine, a daemon and an engine started anew for each number.
        streams: numbers of parallel streams; the engine has a slot for each, so that nobody stands in line.
        rounds: pairs of runs at each.
        output_tokens: of each answer.
        pairs: requests sent one by one in turns, for what is added to TTFT.
        idle_s: for how long the daemon is watched doing nothing.
        seed: decides the prompts.
    """

    choice: EngineChoice
    threads: tuple[int, ...] = field(default_factory=engine_threads)
    streams: tuple[int, ...] = (1, 8, 32)
    rounds: int = 10
    output_tokens: int = _OUTPUT_TOKENS
    pairs: int = 200
    idle_s: float = 60.0
    seed: int = 0

    def quick(self) -> Self:
        """Small enough for a minute: shows that it works, no more."""
        return replace(
            self,
            threads=self.threads[-1:],
            streams=(1, 4),
            rounds=1,
            output_tokens=8,
            pairs=5,
            idle_s=1.0,
        )

    def options(self, threads: int) -> EngineOptions:
        """What both engines are started with."""
        return EngineOptions(context_length=_CONTEXT_LENGTH, slots=max(self.streams), threads=threads)

    def requests(self, streams: int) -> int:
        """Requests of a run: two for each stream, or one where there are many."""
        return max(4, min(2 * streams, max(streams, 32)))


@dataclass(frozen=True, slots=True)
class IdleUse:
    """What the daemon takes with a loaded model and nobody asking; `cpu` is a share of one core."""

    seconds: float
    cpu: float
    resident_bytes: int


@dataclass(slots=True)
class NodeResult:
    """What came of each part; what was not come to is empty.

    Attributes:
        relays: by the engine's threads; each of its levels is one number of streams.
        one_by_one: requests in turns, each a round of its own.
    """

    plan: NodePlan
    relays: dict[int, Comparison] = field(default_factory=dict)
    one_by_one: Comparison | None = None
    idle: IdleUse | None = None
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class _Sides:
    """A daemon and, apart from it, an engine as the daemon starts its own."""

    node: LocalNode
    direct: Target
    via: Target


async def run_node(plan: NodePlan, *, stop: asyncio.Event, progress: Progress) -> NodeResult:
    """Measure as planned. Setting `stop` ends it early and keeps the complete rounds.

    Raises:
        BenchmarkError: something cannot be measured.
    """
    result = NodeResult(plan)
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as directory:
        bare = plan.choice.bare(Path(directory))
        for threads in plan.threads:
            if stop.is_set():
                break
            progress.phase("Starting a node and an engine", Limit(requests=1))
            async with _sides(plan, bare, threads, Path(directory)) as sides:
                measuring = _Measuring(plan, sides, stop, progress)
                result.relays[threads] = await measuring.relay()
                if threads == plan.threads[-1] and not stop.is_set():
                    result.one_by_one = await measuring.one_by_one()
                    result.idle = await measuring.idle()
    result.interrupted = stop.is_set()
    return result


@asynccontextmanager
async def _sides(plan: NodePlan, bare: BareEngine, threads: int, directory: Path) -> AsyncIterator[_Sides]:
    options = plan.options(threads)
    settings = plan.choice.settings() | engine_settings(options)
    async with (
        run_local_node(directory / f"{threads}-threads", plan.choice.data, **settings) as node,
        bare.running(options) as direct,
    ):
        yield _Sides(node, direct, node.target(plan.choice.model))


@dataclass(frozen=True, slots=True)
class _Measuring:
    """The parts of a measurement, on one daemon."""

    plan: NodePlan
    sides: _Sides
    stop: asyncio.Event
    progress: Progress

    async def relay(self) -> Comparison:
        """Tokens/s and CPU at each number of streams."""
        workload = self._workload(_PROMPT_TOKENS, self.plan.output_tokens)
        return await self._compare(
            [streams(workload, count, requests=self.plan.requests(count)) for count in self.plan.streams],
            self.plan.rounds,
        )

    async def one_by_one(self) -> Comparison:
        """What is added to TTFT: short requests, one after the other, each side in turn."""
        return await self._compare([streams(self._workload(8, 4), 1, requests=1)], self.plan.pairs)

    async def idle(self) -> IdleUse | None:
        """The daemon with its model loaded and nothing to do; None where it was stopped."""
        settle_s = min(_MOST_SETTLE_S, self.plan.idle_s)
        self.progress.phase("Idle", Limit(seconds=settle_s + self.plan.idle_s))
        await self._wait(settle_s)
        trees, began = [self.sides.node.daemon()], asyncio.get_running_loop().time()
        before = read_cpu(trees)
        await self._wait(self.plan.idle_s)
        spent, passed = consumed(before, read_cpu(trees)), asyncio.get_running_loop().time() - began
        if self.stop.is_set():
            return None
        return IdleUse(passed, sum(spent.values()) / passed, self.sides.node.resident_bytes())

    async def _compare(self, loads: Sequence[Load], rounds: int) -> Comparison:
        return await compare(
            [Side("direct", self.sides.direct), Side("via", self.sides.via, (self.sides.node.daemon(),))],
            ComparePlan(tuple(loads), rounds=rounds, seed=self.plan.seed),
            progress=self.progress,
            stop=self.stop,
        )

    async def _wait(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self.stop.wait(), seconds)

    def _workload(self, prompt_tokens: int, output_tokens: int) -> Workload:
        return Workload(Fixed(prompt_tokens), Fixed(output_tokens), seed=self.plan.seed)
