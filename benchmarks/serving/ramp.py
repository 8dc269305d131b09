"""A ramp: one load after the other, to find out how much an endpoint takes.

Owns which steps there are and when an open-ended ramp ends. Each step is a measurement of its own, with its
own requests and its own warm-up; how one is measured is ``measuring``'s matter.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.errors import SettingInvalid
from benchmarks.figures.knee import Knee, Point, find_knee
from benchmarks.figures.metrics import ServingMetrics
from benchmarks.generator.client import Clock
from benchmarks.generator.generators import Generator, Phase
from benchmarks.generator.loads import ClosedLoop, Load, OpenLoop
from benchmarks.generator.workloads import WARMUP_INDEX
from benchmarks.serving.evaluating import Evaluation
from benchmarks.serving.measuring import (
    NO_WARMUP,
    ServingPlan,
    ServingResult,
    check_files,
    evaluated,
    generator_of,
    measure_phase,
    probe_target,
    warm_up,
)

TURNED_AWAY: Final = "errors_over_bound"
GAIN: Final = 0.05
"""An open-ended ramp goes on as long as a step gains so much throughput over the one before."""
MOST_STEPS: Final = 14
"""Of an open-ended ramp: 8192 streams, from one."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """The steps.

    Attributes:
        levels: the load of each step, rising; empty where each doubles the one before, as long as it gains.
        start: the first step of such a ramp.
        rates: requests a second, with everything else of how they come; none where the steps are streams.
    """

    levels: tuple[float, ...] = ()
    start: float = 1.0
    rates: OpenLoop | None = None

    def steps(self) -> Iterator[float]:
        """The load of each step, as long as anybody asks for more."""
        if self.levels:
            return iter(self.levels)
        return (self.start * 2**number for number in range(MOST_STEPS))

    def load(self, level: float) -> Load:
        """The load of that step."""
        return replace(self.rates, rate=level) if self.rates else ClosedLoop(round(level))

    @property
    def key(self) -> str:
        """By which letter steps are told apart in a result: r2.5, c8."""
        return "r" if self.rates else "c"

    def __str__(self) -> str:
        of = "rate" if self.rates else "concurrency"
        if self.levels:
            return f"{of}:" + ",".join(f"{level:g}" for level in self.levels)
        return f"{of}:auto:{self.start:g}"


@dataclass(frozen=True, slots=True)
class Step:
    """One step, what came of it, and what is told of that."""

    level: float
    found: ServingResult
    evaluation: Evaluation

    @property
    def metrics(self) -> ServingMetrics:
        """Of the part that figures are told of: the steady one, if there is one."""
        return self.evaluation.metrics

    @property
    def turned_away(self) -> bool:
        """Whether more requests failed than may: then those that were answered say little of the load."""
        return any(doubt.code == TURNED_AWAY for doubt in self.evaluation.doubts)

    @property
    def point(self) -> Point:
        """Where it lies between throughput and latency; latency is none where requests were turned away."""
        answered = self.metrics.e2el if not self.turned_away else None
        latency = answered.mean if answered else None
        return Point(self.level, self.metrics.output_tokens_per_s, latency)

    @property
    def goodput(self) -> float | None:
        """Requests a second that meet all objectives; none where there are no objectives."""
        told = self.evaluation.rates.get("goodput")
        return told.value if told else None


@dataclass(frozen=True, slots=True)
class RampResult:
    """All steps that were measured; of an interrupted ramp the last may be half a step."""

    plan: ServingPlan
    ramp: Ramp
    steps: tuple[Step, ...]
    interrupted: bool

    @property
    def whole(self) -> tuple[Step, ...]:
        """The steps that were measured to their end."""
        return tuple(
            step for step in self.steps if not step.found.metrics.interrupted and not step.found.lost
        )

    def knee(self) -> Knee:
        """The knee among the whole steps."""
        return find_knee([step.point for step in self.whole])


def parse_ramp(text: str, rates: OpenLoop) -> Ramp:
    """Read ``1,2,4,8``, ``auto`` or ``auto:4`` (streams), and the same after ``rate:`` (requests a second).

    Raises:
        SettingInvalid: it is none of them, or does not rise.
    """
    of, steps = "concurrency", text
    for name in ("concurrency", "rate"):
        if text.startswith(f"{name}:"):
            of, steps = name, text.removeprefix(f"{name}:")
    open_loop = rates if of == "rate" else None
    if steps == "auto" or steps.startswith("auto:"):
        first = "1" if steps == "auto" else steps.removeprefix("auto:")
        start = _numbers(text, first, whole=open_loop is None)
        if len(start) == 1:
            return Ramp((), start[0], open_loop)
        raise _no_ramp(text)
    levels = _numbers(text, steps, whole=open_loop is None)
    if any(later <= earlier for earlier, later in itertools.pairwise(levels)):
        raise SettingInvalid(f"--ramp {text!r} must rise from step to step")
    return Ramp(levels, rates=open_loop)


def _numbers(text: str, numbers: str, *, whole: bool) -> tuple[float, ...]:
    try:
        found = tuple(float(number) for number in numbers.split(","))
    except ValueError as error:
        raise _no_ramp(text) from error
    if not all(math.isfinite(number) and number > 0 for number in found):
        raise _no_ramp(text)
    if whole and not all(number.is_integer() for number in found):
        raise SettingInvalid(
            f"--ramp {text!r}: streams are whole numbers; for requests a second write rate:1.5,3"
        )
    return found


def _no_ramp(text: str) -> SettingInvalid:
    return SettingInvalid(
        f"--ramp {text!r} is none: write streams such as 1,2,4,8, or auto to double them as long as it "
        "gains, or requests a second such as rate:1,2,4 or rate:auto"
    )


def gains(throughputs: Sequence[float], goodputs: Sequence[float | None]) -> bool:
    """Whether an open-ended ramp is worth another step.

    Args:
        throughputs: of each step so far.
        goodputs: of each step, requests a second within the objectives; none where there are no objectives.
    """
    if len(throughputs) < 2:
        return bool(throughputs[-1]) if throughputs else True
    before, last = goodputs[-2], goodputs[-1]
    if before is not None and last is not None and last < before:
        return False
    return throughputs[-1] >= throughputs[-2] * (1 + GAIN)


async def run_ramp(
    plan: ServingPlan,
    ramp: Ramp,
    *,
    stop: asyncio.Event,
    progress: Progress,
    clock: Clock = time.perf_counter,
) -> RampResult:
    """Measure step by step. Setting ``stop`` ends it and keeps what was measured.

    Args:
        plan: everything but the load.
        ramp: the loads.
        stop: ends it early.
        progress: hears how far it is.
        clock: of all times.

    Raises:
        EndpointUnusable: the endpoint does not answer even one request.
        GeneratorLost: a process of the generator ended in a warm-up.
        SettingInvalid: a step cannot be shared by so many processes.
    """
    check_files(ramp.load(max(ramp.levels, default=1.0)), plan.processes)  # not after an hour of other steps
    generator = generator_of(replace(plan, load=ramp.load(next(ramp.steps()))), clock)
    await probe_target(plan, stop=stop, progress=progress, clock=clock)
    climber = _Climber(generator, plan, ramp, stop=stop, progress=progress)
    async with generator:
        for level in ramp.steps():
            await climber.climb(level)
            if climber.over():
                break
    return RampResult(plan, ramp, tuple(climber.steps), stop.is_set())


class _Climber:
    """Takes one step after the other, each with requests of its own."""

    def __init__(
        self,
        generator: Generator,
        plan: ServingPlan,
        ramp: Ramp,
        *,
        stop: asyncio.Event,
        progress: Progress,
    ) -> None:
        self._generator = generator
        self._plan = plan
        self._ramp = ramp
        self._stop = stop
        self._progress = progress
        self._first = 0
        self._first_warm = WARMUP_INDEX
        self.steps: list[Step] = []

    async def climb(self, level: float) -> None:
        plan = replace(self._plan, load=self._ramp.load(level))
        if plan.warmup != NO_WARMUP:
            self._progress.phase(f"Warming up, {plan.load}", plan.warmup)
            phase = Phase(plan.load, plan.warmup, self._first_warm)
            self._first_warm += await warm_up(self._generator, phase, self._stop, self._progress)
        if self._stop.is_set():
            return
        self._progress.phase(f"Measuring, {plan.load}", plan.limit)
        found = await measure_phase(
            self._generator, plan, first=self._first, stop=self._stop, progress=self._progress
        )
        self._first += found.run.conversations
        self.steps.append(Step(level, found, evaluated(found)))

    def over(self) -> bool:
        """Whether it ends here: interrupted, a process lost, no answer, or where it is open-ended no gain."""
        last = self.steps[-1] if self.steps else None
        if self._stop.is_set() or (last and (last.found.lost or last.found.run.in_vain)):
            return True
        if self._ramp.levels:
            return False
        return bool(last and last.turned_away) or not gains(
            [step.metrics.output_tokens_per_s for step in self.steps], [step.goodput for step in self.steps]
        )
