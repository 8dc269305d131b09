"""The meter against a scripted engine in a process of its own: what it reports, and how much it can drive.

Owns the cases, the rounds and the cores that generator and engine are kept to. Must not know how results are
shown.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
import msgspec
import psutil

from benchmarks.calibration.truth import Difference, Injected, differences
from benchmarks.command.progress import Progress
from benchmarks.figures.metrics import measure
from benchmarks.figures.statistics import Interval, bootstrap_median
from benchmarks.generator.client import Client
from benchmarks.generator.driving import RealTime, Run, drive
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, Load, OpenLoop
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import WARMUP_INDEX, Fixed, Workload
from benchmarks.stacks.schedules import Schedule
from benchmarks.stacks.scripted_engine import Record
from benchmarks.tunnel.stack import python_process

_PROMPT_TOKENS: Final = 32
_PER_REQUEST: Final = Schedule(1)
_PER_CHUNK: Final = Schedule(4)


@dataclass(frozen=True, slots=True)
class Case:
    """One schedule under one load.

    Attributes:
        chunks: of an answer.
    """

    name: str
    schedule: Schedule
    load: Load
    chunks: int
    requests: int

    def __str__(self) -> str:
        return f"{self.name}: {self.schedule.model}, {self.chunks} chunks, {self.load}"


CASES: Final = (
    Case("fixed", Schedule(20, 100), ClosedLoop(8), 20, 120),
    Case("jittered", Schedule(20, 50, jitter_ms=15), OpenLoop(20, Arrivals.POISSON, 1), 20, 120),
    Case("stalling", Schedule(10, 20, stall_ms=400, every=15), ClosedLoop(8), 31, 48),
)


@dataclass(frozen=True, slots=True)
class CalibrationPlan:
    """What is measured.

    Attributes:
        rounds: of the generator's limits.
        connections: at once, one request of one chunk each, to find how many requests it drives.
        streams: at once, to find how many chunks it reads.
        round_s: seconds of one round.
    """

    cases: tuple[Case, ...] = CASES
    rounds: int = 15
    connections: int = 32
    streams: int = 256
    round_s: float = 1.0
    seed: int = 0

    def quick(self) -> "CalibrationPlan":
        """Fewer rounds and requests."""
        cases = tuple(replace(case, requests=case.requests // 3) for case in self.cases)
        return replace(self, cases=cases, rounds=5)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one generator process drives, each figure over rounds.

    Attributes:
        requests_per_s: short requests answered.
        chunks_per_s: chunks read that each came by itself.
        request_cpu_s: processor time of the generator for a request.
        chunk_cpu_s: processor time of the generator for a chunk.
        busy: greatest share of its core that it used in a round of chunks.
        core: to which it was pinned; none where that cannot be done.
    """

    requests_per_s: Interval | None
    chunks_per_s: Interval | None
    request_cpu_s: Interval | None
    chunk_cpu_s: Interval | None
    busy: float
    core: int | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was found; a case that was not measured to its end is missing."""

    plan: CalibrationPlan
    cases: dict[str, list[Difference]] = field(default_factory=dict)
    limits: Limits | None = None
    interrupted: bool = False


async def run_calibration(plan: CalibrationPlan, *, stop: asyncio.Event, progress: Progress) -> Calibration:
    """Measure as planned. Setting ``stop`` ends it early and keeps what was measured.

    Raises:
        ProcessFailed: the engine did not start.
    """
    with TemporaryDirectory(prefix="porten-calibrate-") as directory:
        async with _engine(Path(directory)) as (url, pid):
            bench = _Bench(plan, url, stop=stop, progress=progress)
            cases = await bench.cases()
            with _apart(pid) as core:
                limits = None if stop.is_set() else await bench.limits(core)
    return Calibration(plan, cases, limits, stop.is_set())


@asynccontextmanager
async def _engine(directory: Path) -> AsyncIterator[tuple[str, int]]:
    engine = python_process("engine", "benchmarks.stacks.scripted_engine", directory=directory)
    async with engine:
        address = (await engine.wait_for_line(r"listening engine=(\S+)"))[1]
        yield f"http://{address}", engine.pid


@contextmanager
def _apart(engine: int) -> Iterator[int | None]:
    """Give the generator a core of its own, and the engine the others; yields that core, if there is one."""
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if len(usable) < 2:
        yield None
        return
    psutil.Process(engine).cpu_affinity(usable[:-1])
    os.sched_setaffinity(0, usable[-1:])
    try:
        yield usable[-1]
    finally:
        os.sched_setaffinity(0, usable)


class _Bench:
    """Drives one engine."""

    def __init__(self, plan: CalibrationPlan, url: str, *, stop: asyncio.Event, progress: Progress) -> None:
        self._plan = plan
        self._url = url
        self._stop = stop
        self._progress = progress

    async def cases(self) -> dict[str, list[Difference]]:
        found = {}
        for case in self._plan.cases:
            self._progress.phase(str(case), Limit(requests=case.requests))
            differing = await self._case(case)
            if self._stop.is_set():
                break
            found[case.name] = differing
        return found

    async def _case(self, case: Case) -> list[Difference]:
        limit = Limit(requests=case.requests)
        async with Client(self._target(case.schedule)) as client:
            await self._drive(client, case.load, Limit(requests=8), chunks=2, first=WARMUP_INDEX)
            await self._records()
            run = await self._drive(client, case.load, limit, chunks=case.chunks)
        return differences(Injected.by(await self._records()), measure(run))

    async def _records(self) -> list[Record]:
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"{self._url}/record")
        return msgspec.json.decode(answer.content, type=list[Record])

    async def limits(self, core: int | None) -> Limits:
        requests = await self._rounds("Requests", _PER_REQUEST, self._plan.connections, chunks=1)
        # One answer each, long enough for the round: every chunk comes by itself.
        chunks = round(self._plan.round_s * 1000 / _PER_CHUNK.interval_ms)
        streams = await self._rounds("Chunks", _PER_CHUNK, self._plan.streams, chunks=chunks)
        return Limits(
            requests_per_s=self._over([turn.per_s for turn in requests]),
            chunks_per_s=self._over([turn.per_s for turn in streams]),
            request_cpu_s=self._over([turn.cpu_s / turn.done for turn in requests]),
            chunk_cpu_s=self._over([turn.cpu_s / turn.done for turn in streams]),
            busy=max((turn.cpu_s / turn.seconds for turn in streams), default=0.0),
            core=core,
        )

    def _over(self, values: Sequence[float]) -> Interval | None:
        return bootstrap_median(values, seed=self._plan.seed) if values else None

    async def _rounds(self, what: str, schedule: Schedule, streams: int, *, chunks: int) -> list["_Turn"]:
        rounds = self._plan.rounds
        self._progress.phase(f"{what} with {streams} connections", Limit(seconds=rounds * self._plan.round_s))
        limit = Limit(requests=streams) if chunks > 1 else Limit(seconds=self._plan.round_s)
        turns: list[_Turn] = []
        async with Client(self._target(schedule)) as client:
            await self._drive(client, ClosedLoop(streams), Limit(requests=2 * streams), chunks=1)
            while len(turns) < rounds and not self._stop.is_set():
                turns.append(await self._turn(client, ClosedLoop(streams), limit, chunks))
        return turns

    async def _turn(self, client: Client, load: Load, limit: Limit, chunks: int) -> "_Turn":
        spent = time.thread_time()
        run = await self._drive(client, load, limit, chunks=chunks)
        spent = time.thread_time() - spent
        done = sum(sample.output_tokens for sample in run.samples if sample.error is None)
        return _Turn(max(done, 1), run.ended_at - run.began_at, spent)

    async def _drive(self, client: Client, load: Load, limit: Limit, *, chunks: int, first: int = 0) -> Run:
        workload = Workload(Fixed(_PROMPT_TOKENS), Fixed(chunks), seed=self._plan.seed)
        return await drive(
            client,
            lambda number: workload.request(first + number),
            load,
            limit,
            timeline=RealTime(),
            stop=self._stop,
            on_sample=self._progress.count,
        )

    def _target(self, schedule: Schedule) -> Target:
        return Target(f"{self._url}/v1", schedule.model)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One round: so many chunks were read, in that time, for that processor time."""

    done: int
    seconds: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else 0.0
