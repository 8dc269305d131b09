"""One serving measurement: probe the endpoint, warm it up, drive the load, reduce what was seen.

The composition of ``client``, ``driving`` and ``metrics``. Must not know the command line or how figures are
shown.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.errors import EndpointUnusable, GeneratorLost
from benchmarks.figures.metrics import ServingMetrics, measure
from benchmarks.generator.client import Client, Clock
from benchmarks.generator.driving import RealTime, Run, drive
from benchmarks.generator.files import check_connections
from benchmarks.generator.generators import Driven, Generator, LocalGenerator, Phase
from benchmarks.generator.loads import ClosedLoop, Limit, Load, Share
from benchmarks.generator.pool import GeneratorPool, check_processes, choose_cores
from benchmarks.generator.target import Target
from benchmarks.generator.use import ProcessUse, watched_of
from benchmarks.generator.workloads import PROBE_INDEX, WARMUP_INDEX, Source
from benchmarks.machine.watch import Watched
from benchmarks.serving.evaluating import Evaluation, Meter, Rules, evaluate

NO_WARMUP: Final = Limit(requests=0)

_ADVICE: Final = {
    "http_400": " (too long for the model? or the endpoint does not know ignore_eos: --no-ignore-eos)",
    "http_401": " (the key comes from --api-key-file or PORTEN_API_KEY: is it the right one, whole?)",
    "http_403": " (the key may not use this model)",
    "http_404": " (is --model one of GET /v1/models? does --base-url end where the API begins, in /v1?)",
    "tls": " (a private certificate authority is given with --ca-file)",
    "timeout": " (a cold model may need longer: --timeout)",
}


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything that decides a measurement.

    Attributes:
        processes: so many generate the load.
        pin: each to a core of its own; where nobody said, several are if there are enough cores.
    """

    target: Target
    workload: Source
    load: Load
    limit: Limit
    warmup: Limit = NO_WARMUP
    processes: int = 1
    pin: bool | None = None
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, slots=True)
class GeneratorUse:
    """What measuring itself took. Near a whole core, the figures show the meter and not the endpoint.

    Attributes:
        cpu_s: processor time of all its processes.
        processes: what each of them took, where that was measured.
    """

    cpu_s: float
    duration_s: float
    processes: tuple[ProcessUse, ...] = ()

    @property
    def busy(self) -> float:
        """Share of one core of the busiest process, 0 to 1 for a generator of one thread."""
        return max(self.busy_shares)

    @property
    def busy_shares(self) -> tuple[float, ...]:
        """Share of one core of each process."""
        if self.processes:
            return tuple(process.busy for process in self.processes)
        return (self.cpu_s / self.duration_s if self.duration_s > 0 else 0.0,)

    @property
    def at_its_limit(self) -> bool:
        """Whether the generator is likely to have slowed down what it measured."""
        return self.busy > 0.8


@dataclass(frozen=True, slots=True)
class ServingResult:
    """A plan with what came of it; nothing is in it if it was stopped before the measured part.

    Attributes:
        metrics: of the whole run.
        watched: how late the generator's own loops were, and what the clocks did.
        lost: generator processes that ended by themselves, in words: what they saw is missing.
    """

    plan: ServingPlan
    run: Run
    metrics: ServingMetrics
    generator: GeneratorUse
    watched: Watched = field(default_factory=Watched)
    lost: tuple[str, ...] = ()


async def run_serving(
    plan: ServingPlan, *, stop: asyncio.Event, progress: Progress, clock: Clock = time.perf_counter
) -> ServingResult:
    """Measure as planned. Setting ``stop`` ends it early and keeps what was measured.

    Raises:
        EndpointUnusable: the endpoint does not answer even one request.
        GeneratorLost: a process of the generator ended before anything was measured.
        SettingInvalid: the target makes no sense, or the load cannot be shared by so many processes.
    """
    generator = generator_of(plan, clock)
    await probe_target(plan, stop=stop, progress=progress, clock=clock)
    async with generator:
        if plan.warmup != NO_WARMUP and not stop.is_set():
            progress.phase("Warming up", plan.warmup)
            await warm_up(generator, Phase(plan.load, plan.warmup, WARMUP_INDEX), stop, progress)
        progress.phase("Measuring", plan.limit)
        return await measure_phase(generator, plan, stop=stop, progress=progress)


async def measure_phase(
    generator: Generator, plan: ServingPlan, *, first: int = 0, stop: asyncio.Event, progress: Progress
) -> ServingResult:
    """Drive the plan's load, whose first conversation has that number, and reduce what was seen."""
    phase = Phase(plan.load, plan.limit, first)
    driven = await generator.drive(phase, stop=stop, tell=progress.add)
    run = driven.run
    return ServingResult(
        plan, run, measure(run), use_of(driven), watched=watched_of(driven.uses), lost=driven.lost
    )


def evaluated(found: ServingResult) -> Evaluation:
    """What is told of a measurement: its steady part, figures with intervals, doubts."""
    plan = found.plan
    return evaluate(
        found.run,
        plan.rules,
        open_loop=by_schedule(plan.load),
        ignore_eos=plan.target.ignore_eos,
        seed=plan.workload.seed,
        meter=Meter(found.generator.busy_shares, found.watched),
    )


def by_schedule(load: Load) -> bool:
    """Whether requests come when they are due, and not when others are answered."""
    return not isinstance(load, ClosedLoop)


async def probe_target(plan: ServingPlan, *, stop: asyncio.Event, progress: Progress, clock: Clock) -> None:
    """See that the endpoint answers at all, before anything else is begun.

    Raises:
        EndpointUnusable: it does not answer even one request.
    """
    progress.phase("Probing", Limit(requests=1))
    async with Client(plan.target, clock=clock) as client:
        await probe(client, plan.target, plan.workload, stop=stop)


def generator_of(plan: ServingPlan, clock: Clock = time.perf_counter) -> Generator:
    """What generates the plan's load: this process, or several others.

    Raises:
        SettingInvalid: they cannot be pinned as it is asked, the load has not so many parts, or a process
            may not have as many connections.
    """
    check_processes(plan.processes, plan.load)
    check_files(plan.load, plan.processes)
    cores = choose_cores(plan.processes, pin=plan.pin)
    if cores == [None]:
        return LocalGenerator(plan.target, plan.workload, clock=clock)
    return GeneratorPool(plan.target, plan.workload, cores=cores)


def check_files(load: Load, processes: int) -> None:
    """Refuse more streams than the processes may have connections.

    Raises:
        SettingInvalid: they are too many.
    """
    if isinstance(load, ClosedLoop):
        check_connections(Share(0, processes).streams(load))


async def warm_up(generator: Generator, phase: Phase, stop: asyncio.Event, progress: Progress) -> int:
    """Drive a phase that is not measured; returns the number of its conversations.

    Raises:
        GeneratorLost: a process of the generator ended by itself.
    """
    driven = await generator.drive(phase, stop=stop, tell=progress.add)
    if driven.lost:
        raise GeneratorLost(f"{driven.lost[0]}: nothing was measured")
    return driven.run.conversations


def use_of(driven: Driven) -> GeneratorUse:
    """What generating took, with each process by itself."""
    run = driven.run
    cpu_s = sum(use.cpu_s for use in driven.uses)
    return GeneratorUse(cpu_s, run.ended_at - run.began_at, driven.uses)


async def probe(client: Client, target: Target, workload: Source, *, stop: asyncio.Event) -> None:
    """Send one short request, so that a wrong key or model is one clear line and not a page of failures.

    Raises:
        EndpointUnusable: it was not answered; the message says why and what to try.
    """
    request = replace(workload.request(PROBE_INDEX), output_tokens=1)
    run = await drive(
        client, lambda _: request, ClosedLoop(1), Limit(requests=1), timeline=RealTime(), stop=stop
    )
    for sample in run.samples:
        # One token may be invisible (a space cut off, half a character): the endpoint works all the same.
        if sample.error not in {None, "no_tokens"}:
            advice = _ADVICE.get(str(sample.error).partition(":")[0], "")
            raise EndpointUnusable(f"{target.base_url}: {sample.detail}{advice}")
