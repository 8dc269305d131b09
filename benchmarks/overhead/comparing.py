"""What lies between two endpoints that lead to the same engine: the same load on both, in turns.

One round is one run on each, back to back, so that a machine that speeds up or slows down does so for both;
which goes first alternates, so that drift within rounds cancels. Figures are medians over rounds of the
ratio or difference within a round. Must not know what the endpoints are, nor the command line.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.console import Console

from benchmarks.command.progress import Progress
from benchmarks.figures.metrics import ServingMetrics, measure, measure_all
from benchmarks.figures.statistics import Interval, Summary, bootstrap_median
from benchmarks.generator.client import Client
from benchmarks.generator.load import ClosedLoop, Limit, RealTime, Run, drive
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import WARMUP_INDEX, Workload
from benchmarks.machine.cpu import WatchedTree, consumed, read_cpu
from benchmarks.serving.measuring import GeneratorUse, probe

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
        requests_per_s: complete requests a second on ``via``.
        cpu_per_token_s: CPU seconds of each watched tree for each output token of ``via``.
        cpu_per_request_s: the same for each request.
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
    requests_per_s: Interval | None
    cpu_per_token_s: dict[str, Interval]
    cpu_per_request_s: dict[str, Interval]
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
    turns = [
        _Turn(measure(turn.direct), measure(turn.via), turn.cpu_s) for turn in rounds if not turn.spoiled
    ]
    names = sorted({name for turn in turns for name in turn.cpu_s})

    def interval(figure: Callable[[_Turn], float | None]) -> Interval | None:
        values = [value for turn in turns if (value := figure(turn)) is not None]
        return bootstrap_median(values, seed=seed) if values else None

    def spent(per: Callable[[ServingMetrics], int]) -> dict[str, Interval]:
        found = {name: interval(partial(_Turn.spent, name=name, per=per)) for name in names}
        return {name: each for name, each in found.items() if each is not None}

    via = measure_all([turn.via for turn in rounds])
    return Level(
        concurrency=concurrency,
        rounds=len(rounds),
        spoiled_rounds=len(rounds) - len(turns),
        throughput_ratio=interval(_throughput_ratio),
        added_ttft_s=interval(_added_ttft),
        e2el_ratio=interval(lambda turn: _p50_ratio(turn.via.e2el, turn.direct.e2el)),
        tpot_ratio=interval(lambda turn: _p50_ratio(turn.via.tpot, turn.direct.tpot)),
        requests_per_s=interval(lambda turn: turn.via.requests_per_s),
        cpu_per_token_s=spent(lambda metrics: metrics.output_tokens),
        cpu_per_request_s=spent(lambda metrics: metrics.completed),
        direct=measure_all([turn.direct for turn in rounds]),
        via=via,
        generator=GeneratorUse(sum(turn.generator_cpu_s for turn in rounds), via.duration_s),
    )


@dataclass(frozen=True, slots=True)
class _Turn:
    """One unspoiled round's figures."""

    direct: ServingMetrics
    via: ServingMetrics
    cpu_s: dict[str, float]

    def spent(self, name: str, per: Callable[[ServingMetrics], int]) -> float | None:
        count = per(self.via)
        return self.cpu_s[name] / count if count and name in self.cpu_s else None


def _throughput_ratio(turn: _Turn) -> float | None:
    return _ratio(turn.via.output_tokens_per_s, turn.direct.output_tokens_per_s)


def _added_ttft(turn: _Turn) -> float | None:
    direct, via = turn.direct.ttft, turn.via.ttft
    return via.p50 - direct.p50 if direct and via else None


def _p50_ratio(via: Summary | None, direct: Summary | None) -> float | None:
    return _ratio(via.p50, direct.p50) if via and direct else None


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
