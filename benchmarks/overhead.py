"""What lies between two endpoints that lead to the same engine: the same load on both, in turns.

One round is one run on each, back to back, so that a machine that speeds up or slows down does so for both;
which goes first alternates, so that drift within rounds cancels. Figures are medians over rounds of the
ratio or difference within a round. Must not know what the endpoints are, nor the command line.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from benchmarks.client import Client
from benchmarks.cpu import WatchedTree, consumed, read_cpu
from benchmarks.load import ClosedLoop, Limit, RealTime, Run, drive
from benchmarks.metrics import ServingMetrics, measure, measure_all
from benchmarks.progress import Progress
from benchmarks.serving import GeneratorUse, probe
from benchmarks.statistics import Interval, bootstrap_median
from benchmarks.target import Target
from benchmarks.workloads import WARMUP_INDEX, Workload

_LEAST_REQUESTS: Final = 4
_DIRECT: Final = 0
_VIA: Final = 1


@dataclass(frozen=True, slots=True)
class ComparePlan:
    """What is run on both endpoints.

    Attributes:
        concurrency: numbers of parallel streams, compared one after the other.
        rounds: pairs of runs for each number of streams.
        requests: in each run; by default two for each stream, and at least 4.
    """

    workload: Workload
    concurrency: tuple[int, ...] = (1, 8)
    rounds: int = 10
    requests: int | None = None

    def requests_at(self, concurrency: int) -> int:
        """How many requests one run has at so many streams."""
        return self.requests or max(_LEAST_REQUESTS, 2 * concurrency)


@dataclass(frozen=True, slots=True)
class Round:
    """One run on each endpoint; CPU seconds are those used during the run on ``via``."""

    direct: Run
    via: Run
    cpu_s: dict[str, float]
    generator_cpu_s: float

    @property
    def spoiled(self) -> bool:
        """A run with failures did other work than its twin: it cannot be compared."""
        return any(sample.error is not None for run in (self.direct, self.via) for sample in run.samples)


@dataclass(frozen=True, slots=True)
class Level:
    """The comparison at one number of streams. Times in seconds; intervals are over unspoiled rounds.

    Attributes:
        throughput_ratio: output tokens a second, via / direct.
        added_ttft_s: median TTFT of a round, via - direct.
        e2el_ratio: median E2EL of a round, via / direct.
        tpot_ratio: median TPOT of a round, via / direct.
        cpu_per_token_s: CPU seconds of each watched tree for each output token of ``via``.
        direct: all rounds pooled.
        via: all rounds pooled.
        generator: of the runs on ``via``.
    """

    concurrency: int
    rounds: int
    spoiled_rounds: int
    throughput_ratio: Interval | None
    added_ttft_s: Interval | None
    e2el_ratio: Interval | None
    tpot_ratio: Interval | None
    cpu_per_token_s: dict[str, float]
    direct: ServingMetrics
    via: ServingMetrics
    generator: GeneratorUse


@dataclass(frozen=True, slots=True)
class Comparison:
    """All levels of one comparison; fewer than planned if it was stopped."""

    direct: Target
    via: Target
    plan: ComparePlan
    levels: tuple[Level, ...]
    interrupted: bool


async def compare(
    direct: Target,
    via: Target,
    plan: ComparePlan,
    *,
    trees: Sequence[WatchedTree] = (),
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> Comparison:
    """Measure ``via`` against ``direct``. Setting ``stop`` ends it and keeps the complete rounds.

    Raises:
        EndpointUnusable: one of the two does not answer a single request.
        ProcessMissing: a process to be watched is not there.
    """
    stop = stop or asyncio.Event()
    progress = progress or Progress(Console(stderr=True), quiet=True)
    read_cpu(trees)
    async with Client(direct) as direct_client, Client(via) as via_client:
        progress.phase("Probing", Limit(requests=2))
        for client, target in ((direct_client, direct), (via_client, via)):
            await probe(client, target, plan.workload, stop=stop)
        pair = _Pair(direct_client, via_client, plan, trees=trees, stop=stop, progress=progress)
        levels: list[Level] = []
        for concurrency in plan.concurrency:
            rounds = await pair.rounds(concurrency)
            if rounds:
                levels.append(reduce_rounds(concurrency, rounds, seed=plan.workload.seed))
    return Comparison(direct, via, plan, tuple(levels), stop.is_set())


def reduce_rounds(concurrency: int, rounds: Sequence[Round], *, seed: int) -> Level:
    """The figures of some rounds."""
    pairs = [(measure(turn.direct), measure(turn.via)) for turn in rounds if not turn.spoiled]
    via = measure_all([turn.via for turn in rounds])
    names = {name for turn in rounds for name in turn.cpu_s}
    spent = {name: sum(turn.cpu_s.get(name, 0.0) for turn in rounds) for name in sorted(names)}

    def interval(figure: Callable[[ServingMetrics, ServingMetrics], float | None]) -> Interval | None:
        values = [value for pair in pairs if (value := figure(*pair)) is not None]
        return bootstrap_median(values, seed=seed) if values else None

    return Level(
        concurrency=concurrency,
        rounds=len(rounds),
        spoiled_rounds=len(rounds) - len(pairs),
        throughput_ratio=interval(lambda a, b: _ratio(b.output_tokens_per_s, a.output_tokens_per_s)),
        added_ttft_s=interval(lambda a, b: b.ttft.p50 - a.ttft.p50 if a.ttft and b.ttft else None),
        e2el_ratio=interval(lambda a, b: _ratio(b.e2el.p50, a.e2el.p50) if a.e2el and b.e2el else None),
        tpot_ratio=interval(lambda a, b: _ratio(b.tpot.p50, a.tpot.p50) if a.tpot and b.tpot else None),
        cpu_per_token_s={
            name: seconds / via.output_tokens for name, seconds in spent.items() if via.output_tokens
        },
        direct=measure_all([turn.direct for turn in rounds]),
        via=via,
        generator=GeneratorUse(sum(turn.generator_cpu_s for turn in rounds), via.duration_s),
    )


def _ratio(via: float, direct: float) -> float | None:
    return via / direct if direct > 0 else None


class _Pair:
    """Two endpoints taking turns."""

    def __init__(
        self,
        direct: Client,
        via: Client,
        plan: ComparePlan,
        *,
        trees: Sequence[WatchedTree],
        stop: asyncio.Event,
        progress: Progress,
    ) -> None:
        self._clients = (direct, via)
        self._plan = plan
        self._trees = trees
        self._stop = stop
        self._progress = progress
        self._next_index = 0

    async def rounds(self, concurrency: int) -> list[Round]:
        """The complete rounds at so many streams."""
        self._progress.phase(f"Warming up, streams: {concurrency}", Limit(requests=2 * concurrency))
        for side in (_DIRECT, _VIA):
            await self._run(side, concurrency, concurrency, WARMUP_INDEX + self._next_index)
        requests = self._plan.requests_at(concurrency)
        limit = Limit(requests=2 * requests * self._plan.rounds)
        self._progress.phase(f"Comparing, streams: {concurrency}", limit)
        rounds: list[Round] = []
        for number in range(self._plan.rounds):
            turn = await self._round(number, concurrency, requests)
            if self._stop.is_set():
                break
            rounds.append(turn)
        return rounds

    async def _round(self, number: int, concurrency: int, requests: int) -> Round:
        index = self._next_index
        self._next_index += requests
        if number % 2 == 0:
            direct = await self._run(_DIRECT, concurrency, requests, index)
        cpu, own = read_cpu(self._trees), time.process_time()
        via = await self._run(_VIA, concurrency, requests, index)
        own, cpu_s = time.process_time() - own, consumed(cpu, read_cpu(self._trees))
        if number % 2 == 1:
            direct = await self._run(_DIRECT, concurrency, requests, index)
        return Round(direct, via, cpu_s, own)

    async def _run(self, side: int, concurrency: int, requests: int, index: int) -> Run:
        return await drive(
            self._clients[side],
            lambda number: self._plan.workload.request(index + number, twin=side),
            ClosedLoop(concurrency),
            Limit(requests=requests),
            timeline=RealTime(),
            stop=self._stop,
            on_sample=self._progress.count,
        )
