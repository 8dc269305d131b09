"""What node and Hub add to each chunk: streams through both against the same engine by itself, in turns.

Owns the loads, the rounds and their figures. A round is one run on the engine's own port and one through Hub
and node, back to back; which goes first alternates. Figures are medians over rounds, differences are taken
within a round. Must not know how the processes came about or how results are shown.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.figures.metrics import measure_all, ttft
from benchmarks.figures.statistics import Interval, Summary, bootstrap_median, percentile, summarise
from benchmarks.generator.client import Client
from benchmarks.generator.load import ClosedLoop, Limit, RealTime, Run, drive
from benchmarks.generator.workloads import WARMUP_INDEX, Fixed, Workload
from benchmarks.machine.cpu import consumed, read_cpu
from benchmarks.overhead.comparing import Round
from benchmarks.serving.measuring import GeneratorUse, probe
from benchmarks.tunnel.stack import RelayStack

PROMPT_TOKENS: Final = 32
_WARMUP_CHUNKS: Final = 20
_PER: Final = 100_000  # chunks: what CPU time is told for
_DIRECT, _VIA = 0, 1


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """So many streams at once, a chunk every `interval_ms` in each, and `answers` of `chunks` one by one."""

    streams: int
    interval_ms: int
    chunks: int
    answers: int = 1

    def __str__(self) -> str:
        return f"{self.streams} x {self.interval_ms} ms, answers of {self.chunks} chunks"


@dataclass(frozen=True, slots=True)
class RelayLevel:
    """One load's figures: seconds, and intervals over unspoiled rounds.

    Attributes:
        chunks_per_s: that reached the client through Hub and node.
        direct_chunks_per_s: that reached it from the engine itself.
        cpu_per_100k_s: CPU seconds for 100,000 chunks through Hub and node, by process.
        added_delay_p50_s: median time of a chunk on its way, via - direct.
        added_delay_p99_s: the same of the slowest hundredth.
        added_ttft_p50_s: median time to the first chunk, via - direct.
        direct_delay: all rounds pooled.
        via_delay: all rounds pooled.
        direct_ttft: all rounds pooled.
        via_ttft: all rounds pooled.
        generator: of the runs through Hub and node.
        errors: failed requests by kind, of both sides.
    """

    load: StreamLoad
    rounds: int
    spoiled_rounds: int
    chunks_per_s: Interval | None
    direct_chunks_per_s: Interval | None
    cpu_per_100k_s: dict[str, Interval]
    added_delay_p50_s: Interval | None
    added_delay_p99_s: Interval | None
    added_ttft_p50_s: Interval | None
    direct_delay: Summary | None
    via_delay: Summary | None
    direct_ttft: Summary | None
    via_ttft: Summary | None
    generator: GeneratorUse
    errors: dict[str, int]


class RelayRounds:
    """Takes turns on one stack."""

    def __init__(
        self, stack: RelayStack, *, rounds: int, seed: int, stop: asyncio.Event, progress: Progress
    ) -> None:
        self._stack = stack
        self._rounds = rounds
        self._seed = seed
        self._stop = stop
        self._progress = progress
        self._next_index = 0

    async def measure(self, load: StreamLoad) -> RelayLevel | None:
        """The figures of one load; None if it was stopped before a round was complete.

        Raises:
            EndpointUnusable: one of the two does not answer a single request.
        """
        targets = self._stack.direct(load.interval_ms), self._stack.via(load.interval_ms)
        async with Client(targets[_DIRECT]) as direct, Client(targets[_VIA]) as via:
            clients = (direct, via)
            for client, target in zip(clients, targets, strict=True):
                await probe(client, target, self._workload(_WARMUP_CHUNKS), stop=self._stop)
            rounds = await self._take_turns(clients, load)
        return reduce_relay_rounds(load, rounds, seed=self._seed) if rounds else None

    def _workload(self, chunks: int) -> Workload:
        return Workload(Fixed(PROMPT_TOKENS), Fixed(chunks), seed=self._seed)

    async def _take_turns(self, clients: tuple[Client, Client], load: StreamLoad) -> list[Round]:
        for side in (_DIRECT, _VIA):
            await self._run(clients, side, load, warmup=True)
        requests = load.streams * load.answers
        self._progress.phase(f"Streams: {load}", Limit(requests=2 * requests * self._rounds))
        rounds: list[Round] = []
        for number in range(self._rounds):
            turn = await self._round(clients, load, number)
            if self._stop.is_set():
                break
            rounds.append(turn)
        return rounds

    async def _round(self, clients: tuple[Client, Client], load: StreamLoad, number: int) -> Round:
        runs: dict[int, Run] = {}
        for side in (_DIRECT, _VIA) if number % 2 == 0 else (_VIA, _DIRECT):
            cpu, own = read_cpu(self._stack.trees()), time.process_time()
            runs[side] = await self._run(clients, side, load)
            if side == _VIA:
                spent = consumed(cpu, read_cpu(self._stack.trees())), time.process_time() - own
        self._next_index += load.streams * load.answers
        return Round(runs[_DIRECT], runs[_VIA], *spent)

    async def _run(
        self, clients: tuple[Client, Client], side: int, load: StreamLoad, *, warmup: bool = False
    ) -> Run:
        workload = self._workload(_WARMUP_CHUNKS if warmup else load.chunks)
        first = WARMUP_INDEX if warmup else self._next_index
        return await drive(
            clients[side],
            lambda number: workload.request(first + number, twin=side),
            ClosedLoop(load.streams),
            Limit(requests=load.streams * (1 if warmup else load.answers)),
            timeline=RealTime(),
            stop=self._stop,
            on_sample=self._progress.count,
        )


def reduce_relay_rounds(load: StreamLoad, rounds: Sequence[Round], *, seed: int) -> RelayLevel:
    """The figures of some rounds."""
    good = [turn for turn in rounds if not turn.spoiled]

    def interval(figure: Callable[[Round], float | None]) -> Interval | None:
        values = [value for turn in good if (value := figure(turn)) is not None]
        return bootstrap_median(values, seed=seed) if values else None

    def cpu(name: str) -> Interval | None:
        return interval(lambda turn: _for_100k(turn.cpu_s.get(name, 0.0), turn.via))

    names = sorted({name for turn in good for name in turn.cpu_s})
    direct, via = [turn.direct for turn in good], [turn.via for turn in good]
    everything = measure_all([run for turn in rounds for run in (turn.direct, turn.via)])
    return RelayLevel(
        load=load,
        rounds=len(rounds),
        spoiled_rounds=len(rounds) - len(good),
        chunks_per_s=interval(lambda turn: _rate(turn.via)),
        direct_chunks_per_s=interval(lambda turn: _rate(turn.direct)),
        cpu_per_100k_s={name: found for name in names if (found := cpu(name)) is not None},
        added_delay_p50_s=interval(lambda turn: _added(turn, _delays, 50)),
        added_delay_p99_s=interval(lambda turn: _added(turn, _delays, 99)),
        added_ttft_p50_s=interval(lambda turn: _added(turn, _ttfts, 50)),
        direct_delay=summarise([delay for run in direct for delay in _delays(run)]),
        via_delay=summarise([delay for run in via for delay in _delays(run)]),
        direct_ttft=summarise([value for run in direct for value in _ttfts(run)]),
        via_ttft=summarise([value for run in via for value in _ttfts(run)]),
        generator=GeneratorUse(
            sum(turn.generator_cpu_s for turn in rounds),
            sum(turn.via.ended_at - turn.via.began_at for turn in rounds),
        ),
        errors=everything.errors,
    )


def _delays(run: Run) -> list[float]:
    return [delay for sample in run.samples for delay in sample.delays]


def _ttfts(run: Run) -> list[float]:
    return [value for sample in run.samples if (value := ttft(sample)) is not None]


def _rate(run: Run) -> float | None:
    duration = run.ended_at - run.began_at
    return len(_delays(run)) / duration if duration > 0 else None


def _for_100k(cpu_s: float, run: Run) -> float | None:
    chunks = len(_delays(run))
    return cpu_s / chunks * _PER if chunks else None


def _added(turn: Round, values: Callable[[Run], list[float]], percent: float) -> float | None:
    direct, via = values(turn.direct), values(turn.via)
    return percentile(via, percent) - percentile(direct, percent) if direct and via else None
