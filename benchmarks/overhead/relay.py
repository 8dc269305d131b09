"""`make bench`: what Hub, tunnel and node cost on this machine, in the project's own standard settings.

Owns which stacks are measured with which settings, and one result for all of it. How a comparison is made is
`benchmarks.overhead`'s and `benchmarks.cold_load`'s matter.
"""

import asyncio
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from benchmarks.cold import report as cold_report
from benchmarks.cold.loads import UNLOAD_AT_ONCE, ColdLoad, ColdTurns, compare_cold_loads
from benchmarks.command import terminal
from benchmarks.command.progress import Progress
from benchmarks.errors import BenchmarkError
from benchmarks.figures.bounds import Bound
from benchmarks.generator.target import Target
from benchmarks.generator.workloads import Fixed, Workload
from benchmarks.machine.cpu import WatchedTree
from benchmarks.machine.processes import ProcessFailed
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import ComparePlan, Comparison, compare
from benchmarks.reports.result import Made, Result, group
from benchmarks.stacks.bare_engine import BareEngine
from benchmarks.stacks.stack import MODEL, SharedData, Stack, run_stack
from runtime.backends.base import EngineOptions
from runtime.devices import usable_threads

COLD_RATIO: Final = Bound(1.3)
ENGINE_SCRIPT: Final = "xllamacpp_server"
PROMPT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Found:
    """All of it: comparisons by the engine's number of threads, and cold starts."""

    relays: dict[int, Comparison]
    cold: ColdLoad | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured. Zero cold rounds leave the cold starts out."""

    threads: tuple[int, ...]
    rounds: int
    cold_rounds: int
    workload: Workload


@dataclass(frozen=True, slots=True)
class Bench:
    """Everything that is measured, one stack after the other, each against the bare engine."""

    bare: BareEngine
    shared: SharedData
    directory: Path
    plan: Plan
    progress: Progress

    async def measure(self) -> Found:
        """Run it all.

        Raises:
            BenchmarkError: something cannot be measured.
            ProcessFailed: a stack did not come up.
        """
        relays = {threads: await self._relay(threads) for threads in self.plan.threads}
        return Found(relays, await self._cold() if self.plan.cold_rounds else None)

    async def _relay(self, threads: int) -> Comparison:
        settings = {"PORTEN_THREADS": str(threads)}
        async with (
            run_stack(self.directory / f"{threads}-threads", self.shared, node_settings=settings) as stack,
            self.bare.running(EngineOptions(threads=threads)) as direct,
        ):
            plan = ComparePlan(self.plan.workload, rounds=self.plan.rounds)
            return await compare(direct, _via(stack), plan, trees=_trees(stack), progress=self.progress)

    async def _cold(self) -> ColdLoad | None:
        async with run_stack(self.directory / "cold", self.shared, node_settings=UNLOAD_AT_ONCE) as stack:
            daemon = stack.node.process.pid
            turns = ColdTurns(self.bare, daemon, _via(stack), self.plan.workload, self.progress)
            return await compare_cold_loads(turns, rounds=self.plan.cold_rounds)


def _via(stack: Stack) -> Target:
    return Target(stack.base_url, MODEL, api_key=stack.api_key)


def _trees(stack: Stack) -> tuple[WatchedTree, ...]:
    """The two programs of ours; the engine under the node is what it would be without us."""
    return (
        WatchedTree("hub", stack.hub.process.pid),
        WatchedTree("node", stack.node.process.pid, exclude=(ENGINE_SCRIPT,)),
    )


def report(found: Found, made: Made) -> Result:
    """The result as it is shown and written."""
    cores = usable_threads()
    groups = [
        group(
            f"Engine on {threads} of {cores} cores, {level.concurrency} streams",
            overhead_report.figures(level, f"{cores - threads}_cores_free/"),
            sides=overhead_report.SIDES,
        )
        for threads, comparison in found.relays.items()
        for level in comparison.levels
    ]
    if found.cold is not None:
        figure = cold_report.cold_figure(found.cold, "cold/ratio", COLD_RATIO)
        groups.append(group("Cold start to the first token", [figure], sides=overhead_report.SIDES))
    return Result(
        benchmark="relay",
        made=made,
        settings={"threads": list(found.relays)},
        groups=groups,
        remarks=[remark for each in found.relays.values() for remark in overhead_report.remarks(each)],
        details={
            "relays": {str(threads): overhead_report.details(each) for threads, each in found.relays.items()}
        },
    )


async def _run(shared: SharedData, plan: Plan) -> Found:
    with tempfile.TemporaryDirectory(prefix="porten-bench-") as directory:
        place = Path(directory)
        async with Progress(Console(stderr=True)) as progress:
            return await Bench(BareEngine.of(shared, place), shared, place, plan, progress).measure()


def main(
    shared_data: Annotated[Path, typer.Option(help="Where the engine and the model are kept between runs.")],
    *,
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of runs at each number of streams.")] = 10,
    cold_rounds: Annotated[int, typer.Option(min=0, help="Pairs of cold starts; 0 for none.")] = 10,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds: shows that it works, no more.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the result there.")] = None,
) -> None:
    """Measure Hub, tunnel and node against the engine's own port, with a real model."""
    cores = usable_threads()
    plan = Plan(
        threads=(cores, cores - 1) if cores > 1 else (1,),
        rounds=2 if quick else rounds,
        cold_rounds=min(cold_rounds, 2) if quick else cold_rounds,
        workload=Workload(Fixed(PROMPT_TOKENS), Fixed(OUTPUT_TOKENS), seed=secrets.randbelow(1 << 31)),
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_run(SharedData(shared_data.resolve()), plan))
    except (BenchmarkError, ProcessFailed) as error:
        Console(stderr=True).print(f"[red]Error:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    terminal.conclude(report(found, terminal.made(quick=quick)), str(json_file) if json_file else None)


if __name__ == "__main__":
    typer.run(main)
