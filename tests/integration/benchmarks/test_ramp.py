"""A ramp that is ended early keeps what it has."""

import asyncio
from typing import Any

from rich.console import Console

from benchmarks.command import terminal
from benchmarks.command.progress import Progress
from benchmarks.generator.loads import Limit
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.serving import ramp_report
from benchmarks.serving.measuring import ServingPlan
from benchmarks.serving.ramp import Ramp, run_ramp


async def test_whole_steps_are_kept_and_half_a_step_makes_no_knee(
    fake_engine: Any, obedient_answer: Any
) -> None:
    stop = asyncio.Event()

    async def ends_in_the_third_step(engine: Any) -> None:
        if len(server.requests) < 1 + 2 * 10 + 5:
            await obedient_answer(engine)
            return
        stop.set()
        await engine.reader.read()

    ramp = Ramp((1, 2, 4, 8))
    async with fake_engine(ends_in_the_third_step) as server:
        plan = ServingPlan(
            Target(server.url, "m"), Workload(Fixed(4), Fixed(2)), ramp.load(1), Limit(requests=10)
        )
        progress = Progress(Console(stderr=True), quiet=True)
        found = await run_ramp(plan, ramp, stop=stop, progress=progress)
    assert [(step.level, step.found.metrics.interrupted) for step in found.steps] == [
        (1, False),
        (2, False),
        (4, True),
    ]
    assert [step.level for step in found.whole] == [1, 2]
    result = ramp_report.report(found, terminal.made())
    assert result.interrupted
    assert len(result.plots[0].lines[0].x) == 2
    assert "no_knee" in {remark.code for remark in result.remarks}
    keys = {figure.key: figure.value for _, figure in result.figures()}
    assert keys["c2/completed"] == 10
    assert 1 <= (keys["c4/completed"] or 0) <= 4
