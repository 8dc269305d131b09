"""One serving measurement: probe the endpoint, warm it up, drive the load, reduce what was seen.

The composition of ``client``, ``load`` and ``metrics``. Must not know the command line or how figures are
shown.
"""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Final

from benchmarks.command.progress import Progress
from benchmarks.errors import EndpointUnusable
from benchmarks.figures.metrics import ServingMetrics, measure
from benchmarks.generator.client import Client, Clock
from benchmarks.generator.load import ClosedLoop, Limit, Load, RealTime, Run, drive
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import PROBE_INDEX, WARMUP_INDEX, Workload
from benchmarks.machine.watch import Watch, Watched
from benchmarks.serving.evaluating import Rules

NO_WARMUP: Final = Limit(requests=0)

_ADVICE: Final = {
    "http_400": " (an endpoint that does not know ignore_eos needs --no-ignore-eos)",
    "http_401": " (give the key with --api-key-file or in PORTEN_API_KEY)",
    "http_403": " (the key may not use this model)",
    "http_404": " (check --model, and that --base-url ends where the OpenAI API begins, mostly in /v1)",
    "tls": " (a private certificate authority is given with --ca-file)",
    "timeout": " (a cold model may need longer: --timeout)",
}


@dataclass(frozen=True, slots=True)
class ServingPlan:
    """Everything that decides a measurement."""

    target: Target
    workload: Workload
    load: Load
    limit: Limit
    warmup: Limit = NO_WARMUP
    rules: Rules = field(default_factory=Rules)


@dataclass(frozen=True, slots=True)
class GeneratorUse:
    """What measuring itself took. Near a whole core, the figures show the meter and not the endpoint."""

    cpu_s: float
    duration_s: float

    @property
    def busy(self) -> float:
        """Share of one core, 0 to 1 for a generator of one thread."""
        return self.cpu_s / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def at_its_limit(self) -> bool:
        """Whether the generator is likely to have slowed down what it measured."""
        return self.busy > 0.8


@dataclass(frozen=True, slots=True)
class ServingResult:
    """A plan with what came of it; nothing is in it if it was stopped before the measured part.

    Attributes:
        metrics: of the whole run.
        watched: how late the generator's own loop was, and what the clocks did.
    """

    plan: ServingPlan
    run: Run
    metrics: ServingMetrics
    generator: GeneratorUse
    watched: Watched = field(default_factory=Watched)


async def run_serving(
    plan: ServingPlan, *, stop: asyncio.Event, progress: Progress, clock: Clock = time.perf_counter
) -> ServingResult:
    """Measure as planned. Setting ``stop`` ends it early and keeps what was measured.

    Raises:
        EndpointUnusable: the endpoint does not answer even one request.
        SettingInvalid: the target makes no sense.
    """
    timeline = RealTime(clock)
    async with Client(plan.target, clock=clock) as client:
        progress.phase("Probing", Limit(requests=1))
        await probe(client, plan.target, plan.workload, stop=stop)
        if plan.warmup != NO_WARMUP and not stop.is_set():
            progress.phase("Warming up", plan.warmup)
            await drive(
                client,
                lambda number: plan.workload.request(WARMUP_INDEX + number),
                plan.load,
                plan.warmup,
                timeline=timeline,
                stop=stop,
                on_sample=progress.count,
            )
        progress.phase("Measuring", plan.limit)
        cpu_before = time.thread_time()  # of the thread that the event loop has: the one that can be full
        async with Watch(monotonic=clock) as watch:
            run = await drive(
                client,
                plan.workload.request,
                plan.load,
                plan.limit,
                timeline=timeline,
                stop=stop,
                on_sample=progress.count,
            )
        used = GeneratorUse(time.thread_time() - cpu_before, run.ended_at - run.began_at)
    return ServingResult(plan, run, measure(run), used, watch.seen)


async def probe(client: Client, target: Target, workload: Workload, *, stop: asyncio.Event) -> None:
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
