"""What node and Hub add to each chunk: streams through both against the same engine by itself, in turns.

Owns the loads and their figures; the turns are `benchmarks.overhead.turns`'s. Figures are medians over
rounds, differences are taken within a round. Must not know how the processes came about or how results are
shown.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.figures.metrics import measure_all, ttft
from benchmarks.figures.statistics import Interval, Summary, bootstrap_median, percentile, summarise
from benchmarks.generator.driving import Run
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.overhead.turns import Load, Round, Turn, Turns
from benchmarks.serving.measuring import GeneratorUse
from benchmarks.tunnel.stack import RelayStack

PROMPT_TOKENS: Final = 32
_PER: Final = 100_000  # chunks: what CPU time is told for


@dataclass(frozen=True, slots=True)
class StreamLoad:
    """So many streams at once, a chunk every `interval_ms` in each, and `answers` of `chunks` one by one."""

    streams: int
    interval_ms: int
    chunks: int
    answers: int = 1

    def load(self, seed: int) -> Load:
        """The same for sides that take turns."""
        workload = Workload(Fixed(PROMPT_TOKENS), Fixed(self.chunks), seed=seed)
        key = f"{self.streams}x{self.interval_ms}ms"
        return Load(key, str(self), self.streams, self.streams * self.answers, workload)

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

    async def measure(self, load: StreamLoad) -> RelayLevel | None:
        """The figures of one load; None if it was stopped before a round was complete.

        Raises:
            EndpointUnusable: one of the two does not answer a single request.
        """
        sides = self._stack.sides(load.interval_ms)
        turns = Turns(sides, rounds=self._rounds, stop=self._stop, progress=self._progress)
        asked = load.load(self._seed)
        await turns.probe(asked)
        rounds = await turns.take(asked)
        return reduce_relay_rounds(load, rounds, seed=self._seed) if rounds else None


def reduce_relay_rounds(load: StreamLoad, rounds: Sequence[Round], *, seed: int) -> RelayLevel:
    """The figures of some rounds."""
    good = [(direct, via) for direct, via in rounds if not direct.spoiled and not via.spoiled]

    def interval(figure: Callable[[Turn, Turn], float | None]) -> Interval | None:
        values = [value for pair in good if (value := figure(*pair)) is not None]
        return bootstrap_median(values, seed=seed) if values else None

    def cpu(name: str) -> Interval | None:
        return interval(lambda _, via: _for_100k(via.cpu_s.get(name, 0.0), via.run))

    names = sorted({name for _, via in good for name in via.cpu_s})
    direct_runs, via_runs = [direct.run for direct, _ in good], [via.run for _, via in good]
    everything = measure_all([turn.run for turns in rounds for turn in turns])
    return RelayLevel(
        load=load,
        rounds=len(rounds),
        spoiled_rounds=len(rounds) - len(good),
        chunks_per_s=interval(lambda _, via: _rate(via.run)),
        direct_chunks_per_s=interval(lambda direct, _: _rate(direct.run)),
        cpu_per_100k_s={name: found for name in names if (found := cpu(name)) is not None},
        added_delay_p50_s=interval(_added(_delays, 50)),
        added_delay_p99_s=interval(_added(_delays, 99)),
        added_ttft_p50_s=interval(_added(_ttfts, 50)),
        direct_delay=summarise([delay for run in direct_runs for delay in _delays(run)]),
        via_delay=summarise([delay for run in via_runs for delay in _delays(run)]),
        direct_ttft=summarise([value for run in direct_runs for value in _ttfts(run)]),
        via_ttft=summarise([value for run in via_runs for value in _ttfts(run)]),
        generator=GeneratorUse(
            sum(via.generator_cpu_s for _, via in rounds),
            sum(via.run.ended_at - via.run.began_at for _, via in rounds),
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


def _added(values: Callable[[Run], list[float]], percent: float) -> Callable[[Turn, Turn], float | None]:
    def added(direct: Turn, via: Turn) -> float | None:
        alone, behind = values(direct.run), values(via.run)
        return percentile(behind, percent) - percentile(alone, percent) if alone and behind else None

    return added
