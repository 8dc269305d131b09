"""`make bench`: what Hub, tunnel and node cost on this machine, in the project's own standard settings.

Owns which stacks are measured with which settings, and one result for all of it. How a comparison is made is
`benchmarks.overhead`'s and `benchmarks.cold_load`'s matter.
"""

import asyncio
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from benchmarks import cold_report, report
from benchmarks.bare_engine import BareEngine
from benchmarks.cold_load import UNLOAD_AT_ONCE, ColdLoad, ColdTurns, compare_cold_loads
from benchmarks.cpu import WatchedTree
from benchmarks.environment import describe_environment
from benchmarks.errors import BenchmarkError
from benchmarks.overhead import ComparePlan, Comparison, compare
from benchmarks.processes import ProcessFailed
from benchmarks.progress import Progress
from benchmarks.stack import MODEL, SharedData, Stack, run_stack
from benchmarks.target import Target
from benchmarks.workloads import Fixed, Workload
from runtime.backends.base import EngineOptions
from runtime.devices import usable_threads

SCHEMA: Final = "porten.bench.relay/1"
ENGINE_SCRIPT: Final = "xllamacpp_server"
PROMPT_TOKENS: Final = 32
OUTPUT_TOKENS: Final = 64


@dataclass(frozen=True, slots=True)
class Result:
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

    async def measure(self) -> Result:
        """Run it all.

        Raises:
            BenchmarkError: something cannot be measured.
            ProcessFailed: a stack did not come up.
        """
        relays = {threads: await self._relay(threads) for threads in self.plan.threads}
        return Result(relays, await self._cold() if self.plan.cold_rounds else None)

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


def document(result: Result) -> report.Document:
    """The result for a JSON file."""
    found = report.envelope(SCHEMA, ["make", "bench", *sys.argv[1:]], describe_environment())
    found["relay"] = {
        str(threads): report.comparison_document(each) for threads, each in result.relays.items()
    }
    if result.cold is not None:
        found["cold_load"] = cold_report.cold_document(result.cold)
    return found


def show(console: Console, result: Result) -> None:
    """Print the result."""
    for threads, comparison in result.relays.items():
        console.rule(f"engine on {threads} of {usable_threads()} cores")
        report.print_comparison(console, comparison)
    if (cold := result.cold) is not None:
        ratio = cold.ratio
        console.rule("cold start to the first token")
        console.print(
            f"bare engine {min(cold.direct_s):.2f} s to {max(cold.direct_s):.2f} s, behind Hub and node "
            f"{min(cold.via_s):.2f} s to {max(cold.via_s):.2f} s: median ratio x {ratio.median:.3f} "
            f"({ratio.low:.3f} to {ratio.high:.3f}, {ratio.count} pairs)",
            highlight=False,
        )


async def _run(shared: SharedData, plan: Plan) -> Result:
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
            result = runner.run(_run(SharedData(shared_data.resolve()), plan))
    except (BenchmarkError, ProcessFailed) as error:
        Console(stderr=True).print(f"[red]Error:[/] {error}", highlight=False)
        raise typer.Exit(1) from error
    show(Console(), result)
    if json_file is not None:
        report.write_json(document(result), json_file)


if __name__ == "__main__":
    typer.run(main)
