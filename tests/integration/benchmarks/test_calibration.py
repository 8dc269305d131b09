"""The meter against an engine in a process of its own, by the clock that both read.

No machine is quiet enough for a bound in milliseconds. But each chunk says when it left, and the engine keeps
its own record: what the meter saw, less the way of each chunk, must be that record to the microsecond.
"""

import asyncio
import os
from itertools import accumulate
from pathlib import Path

import httpx
import msgspec
import pytest
from rich.console import Console

from benchmarks.calibration.measuring import CASES, CalibrationPlan, Case, run_calibration
from benchmarks.calibration.report import report
from benchmarks.command.progress import Progress
from benchmarks.generator.client import Client, Sample
from benchmarks.generator.driving import RealTime, drive
from benchmarks.generator.loads import Arrivals, ClosedLoop, Limit, OpenLoop
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.reports.result import Made
from benchmarks.stacks.schedules import Schedule
from benchmarks.stacks.scripted_engine import Record
from benchmarks.tunnel.stack import python_process

ROUNDED = 2e-6
CHUNKS = 12


def left_at(sample: Sample) -> list[float]:
    """When the engine handed each chunk to its socket, by what the meter saw."""
    assert sample.first_token_at is not None
    arrivals = accumulate(sample.gaps, initial=sample.first_token_at)
    return [moment - delay for moment, delay in zip(arrivals, sample.delays, strict=True)]


@pytest.mark.parametrize(
    "case",
    [
        Case("closed", Schedule(5, 20), ClosedLoop(4), CHUNKS, 12),
        Case("open", Schedule(5, 10, jitter_ms=4), OpenLoop(40, Arrivals.CONSTANT), CHUNKS, 12),
        Case("stalling", Schedule(5, 5, stall_ms=100, every=4), ClosedLoop(4), CHUNKS, 8),
    ],
    ids=lambda case: case.name,
)
async def test_what_was_seen_is_what_was_done(tmp_path: Path, case: Case) -> None:
    workload = Workload(Fixed(8), Fixed(CHUNKS), seed=1)
    async with python_process("engine", "benchmarks.stacks.scripted_engine", directory=tmp_path) as engine:
        url = f"http://{(await engine.wait_for_line(r'listening engine=(.+)'))[1]}"
        async with Client(Target(f"{url}/v1", case.schedule.model)) as client, httpx.AsyncClient() as other:
            run = await drive(
                client, workload.request, case.load, Limit(requests=case.requests), timeline=RealTime(),
                stop=asyncio.Event(),
            )  # fmt: skip
            records = msgspec.json.decode((await other.get(f"{url}/record")).content, type=list[Record])
            assert (await other.get(f"{url}/record")).json() == []  # it hands over what it has, once
            assert (await other.get(f"{url}/metrics")).status_code == 404
    assert [sample.error for sample in run.samples] == [None] * case.requests
    seen = sorted(run.samples, key=lambda sample: left_at(sample)[0])
    records.sort(key=lambda record: record.sent_at[0])
    for sample, record in zip(seen, records, strict=True):
        assert left_at(sample) == pytest.approx(record.sent_at, abs=ROUNDED)
        assert min(sample.delays) > -ROUNDED
        assert sample.started_at <= sample.sent_at <= record.received_at
        due = case.schedule.first_ms or 0
        assert record.sent_at[0] - record.received_at > due / 1000 - 0.002  # never early by more than a step


async def test_a_calibration_tells_every_figure_and_leaves_the_process_as_it_was() -> None:
    cases = tuple(Case(case.name, case.schedule, case.load, 3, 4) for case in CASES)
    plan = CalibrationPlan(cases=cases, rounds=1, connections=4, streams=4, round_s=0.1, seed=1)
    usable = os.sched_getaffinity(0)
    async with Progress(Console(stderr=True), quiet=True) as progress:
        found = await run_calibration(plan, stop=asyncio.Event(), progress=progress)
    assert os.sched_getaffinity(0) == usable
    told = report(found, Made(at="", command=[], environment={}))
    keys = {figure.key for _, figure in told.figures() if figure.value is not None}
    latencies, statistics = ("ttft", "itl", "tpot", "e2el"), ("mean", "p50", "p99")
    for case in cases:
        assert {f"{case.name}/{kind}_{which}_error_ms" for kind in latencies for which in statistics} <= keys
    assert {"limits/requests_per_s", "limits/chunks_per_s", "limits/chunk_cpu_us"} <= keys


async def test_a_calibration_that_is_stopped_keeps_nothing_half() -> None:
    stop = asyncio.Event()
    stop.set()
    async with Progress(Console(stderr=True), quiet=True) as progress:
        found = await run_calibration(CalibrationPlan(), stop=stop, progress=progress)
    assert (found.cases, found.limits, found.interrupted) == ({}, None, True)
