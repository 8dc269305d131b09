"""What lies between endpoints that lead to the same engine: rounds of turns into figures.

The first side is what the others are measured against, mostly the engine itself. Figures are medians over
rounds of the ratio or difference *within* a round. Must not know what the sides are, nor the command line.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console

from benchmarks.command.progress import Progress
from benchmarks.figures.metrics import ServingMetrics, measure, measure_all
from benchmarks.figures.statistics import Interval, Summary, bootstrap_median
from benchmarks.generator.driving import Run
from benchmarks.generator.workloads import Workload
from benchmarks.overhead.turns import Load, Round, Side, Turn, Turns
from benchmarks.serving.measuring import GeneratorUse

_LEAST_REQUESTS: Final = 4


@dataclass(frozen=True, slots=True)
class ComparePlan:
    """What is run on all sides.

    Attributes:
        loads: one after the other.
        rounds: turns of each side at each load.
        seed: decides the intervals' resampling.
    """

    loads: tuple[Load, ...]
    rounds: int = 10
    seed: int = 0


def streams(
    workload: Workload, concurrency: int, *, requests: int | None = None, stream: bool = True
) -> Load:
    """So many requests at a time; in a run two of each, and at least 4, where nothing else is said."""
    wanted = requests or max(_LEAST_REQUESTS, 2 * concurrency)
    title = "1 stream" if concurrency == 1 else f"{concurrency} streams"
    return Load(f"c{concurrency}", title, concurrency, wanted, workload, stream)


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds of one tree of processes, over unspoiled rounds.

    Attributes:
        per_token_s: for each output token.
        per_chunk_s: for each token chunk; none where no answer came in several.
    """

    per_request_s: Interval
    per_token_s: Interval
    per_chunk_s: Interval | None


@dataclass(frozen=True, slots=True)
class SideLevel:
    """One side at one load. Times in seconds; intervals are over unspoiled rounds.

    The ratios and the difference are to the first side, and none for the first itself.

    Attributes:
        spoiled_rounds: in which this side or the first one had failures.
        throughput_ratio: output tokens a second.
        added_ttft_s: difference of a round's median TTFTs.
        e2el_ratio: median E2EL of a round.
        tpot_ratio: median TPOT of a round.
        cpu_ratio: processor time of all watched processes and of the generator, for a request.
        requests_per_s: complete requests a second.
        cpu: by the name of a tree.
        metrics: all rounds pooled.
        generator: of this side's runs.
    """

    name: str
    spoiled_rounds: int
    throughput_ratio: Interval | None
    added_ttft_s: Interval | None
    e2el_ratio: Interval | None
    tpot_ratio: Interval | None
    cpu_ratio: Interval | None
    requests_per_s: Interval | None
    cpu: dict[str, CpuUse]
    metrics: ServingMetrics
    generator: GeneratorUse


@dataclass(frozen=True, slots=True)
class Level:
    """The comparison at one load."""

    load: Load
    rounds: int
    sides: tuple[SideLevel, ...]

    @property
    def first(self) -> SideLevel:
        """What the others are measured against."""
        return self.sides[0]

    @property
    def others(self) -> tuple[SideLevel, ...]:
        """What is measured."""
        return self.sides[1:]

    @property
    def via(self) -> SideLevel:
        """The measured side where there is one only."""
        (only,) = self.others
        return only


@dataclass(frozen=True, slots=True)
class Comparison:
    """All levels of one comparison; fewer than planned if it was stopped."""

    sides: tuple[Side, ...]
    plan: ComparePlan
    levels: tuple[Level, ...]
    interrupted: bool


async def compare(
    sides: Sequence[Side],
    plan: ComparePlan,
    *,
    progress: Progress | None = None,
    stop: asyncio.Event | None = None,
) -> Comparison:
    """Measure all sides against the first. Setting ``stop`` ends it and keeps the complete rounds.

    Raises:
        EndpointUnusable: one of them does not answer a single request.
        ProcessMissing: a process to be watched is not there.
    """
    stop = stop or asyncio.Event()
    progress = progress or Progress(Console(stderr=True), quiet=True)
    turns = Turns(sides, rounds=plan.rounds, stop=stop, progress=progress)
    await turns.probe(plan.loads[0])
    names = [side.name for side in sides]
    levels = [
        reduce_rounds(load, names, rounds, seed=plan.seed)
        for load in plan.loads
        if (rounds := await turns.take(load))
    ]
    return Comparison(tuple(sides), plan, tuple(levels), stop.is_set())


def reduce_rounds(load: Load, names: Sequence[str], rounds: Sequence[Round], *, seed: int) -> Level:
    """The figures of some rounds; ``names`` are the sides' in the order of a round's turns."""
    pairs = [[_Pair.of(turns[0], turns[which]) for turns in rounds] for which in range(len(names))]
    sides = [
        _Reduction(each, seed).side(name, is_first=name == names[0])
        for name, each in zip(names, pairs, strict=True)
    ]
    return Level(load, len(rounds), tuple(sides))


@dataclass(frozen=True, slots=True)
class _Pair:
    """One round of one side: its turn beside the first side's."""

    first: Turn
    own: Turn
    first_metrics: ServingMetrics
    metrics: ServingMetrics

    @classmethod
    def of(cls, first: Turn, own: Turn) -> "_Pair":
        return cls(first, own, measure(first.run), measure(own.run))

    @property
    def spoiled(self) -> bool:
        return self.first.spoiled or self.own.spoiled

    def throughput_ratio(self) -> float | None:
        return _ratio(self.metrics.output_tokens_per_s, self.first_metrics.output_tokens_per_s)

    def added_ttft(self) -> float | None:
        first, own = self.first_metrics.ttft, self.metrics.ttft
        return own.p50 - first.p50 if first and own else None

    def cpu_ratio(self) -> float | None:
        if not self.first.cpu_s or not self.own.cpu_s:
            return None
        return _ratio(
            _cpu_per_request(self.own, self.metrics), _cpu_per_request(self.first, self.first_metrics)
        )


class _Reduction:
    """From one side's rounds to its figures."""

    def __init__(self, pairs: Sequence[_Pair], seed: int) -> None:
        self._all = pairs
        self._good = [pair for pair in pairs if not pair.spoiled]
        self._seed = seed

    def side(self, name: str, *, is_first: bool) -> SideLevel:
        against = (lambda _figure: None) if is_first else self._interval
        pooled = measure_all([pair.own.run for pair in self._all])
        return SideLevel(
            name=name,
            spoiled_rounds=len(self._all) - len(self._good),
            throughput_ratio=against(_Pair.throughput_ratio),
            added_ttft_s=against(_Pair.added_ttft),
            e2el_ratio=against(lambda pair: _p50_ratio(pair.metrics.e2el, pair.first_metrics.e2el)),
            tpot_ratio=against(lambda pair: _p50_ratio(pair.metrics.tpot, pair.first_metrics.tpot)),
            cpu_ratio=against(_Pair.cpu_ratio),
            requests_per_s=self._interval(lambda pair: pair.metrics.requests_per_s),
            cpu=self._cpu(),
            metrics=pooled,
            generator=GeneratorUse(sum(pair.own.generator_cpu_s for pair in self._all), pooled.duration_s),
        )

    def _cpu(self) -> dict[str, CpuUse]:
        names = dict.fromkeys(name for pair in self._good for name in pair.own.cpu_s)
        return {name: use for name in names if (use := self._cpu_of(name)) is not None}

    def _cpu_of(self, name: str) -> CpuUse | None:
        def per(count: Callable[[_Pair], int]) -> Interval | None:
            return self._interval(lambda pair: _each(pair.own.cpu_s.get(name), count(pair)))

        per_request = per(lambda pair: pair.metrics.completed)
        per_token = per(lambda pair: pair.metrics.output_tokens)
        if per_request is None or per_token is None:
            return None
        in_chunks = any(_chunks(pair.own.run) > pair.metrics.completed for pair in self._good)
        per_chunk = per(lambda pair: _chunks(pair.own.run)) if in_chunks else None
        return CpuUse(per_request, per_token, per_chunk)

    def _interval(self, figure: Callable[[_Pair], float | None]) -> Interval | None:
        values = [value for pair in self._good if (value := figure(pair)) is not None]
        return bootstrap_median(values, seed=self._seed) if values else None


def _chunks(run: Run) -> int:
    return sum(sample.chunks for sample in run.samples)


def _cpu_per_request(turn: Turn, metrics: ServingMetrics) -> float:
    spent = sum(turn.cpu_s.values()) + turn.generator_cpu_s
    return spent / metrics.completed if metrics.completed else 0.0


def _p50_ratio(own: Summary | None, first: Summary | None) -> float | None:
    return _ratio(own.p50, first.p50) if own and first else None


def _ratio(own: float, first: float) -> float | None:
    return own / first if first > 0 else None


def _each(spent: float | None, count: int) -> float | None:
    return spent / count if spent is not None and count else None
