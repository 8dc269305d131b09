"""The result of `porten-bench cold-load` as people read it and as programs do (``porten.bench.cold-load/1``).

Owns the bounds a load is to keep, its tables and its document.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console

from benchmarks import figures, report
from benchmarks.bounds import RATIO, Bound, Figure
from benchmarks.cold_bench import ColdResult
from benchmarks.cold_load import ColdLoad
from benchmarks.statistics import bootstrap_median, median

COLD_SCHEMA: Final = "porten.bench.cold-load/1"
COLD_RATIO: Final = Bound(1.15)
SWAP_S: Final = Bound(2.0)


def document(
    result: ColdResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> report.Document:
    """The result for a JSON file."""
    plan, cold = result.plan, result.cold
    return report.envelope(COLD_SCHEMA, command, environment) | {
        "backend": plan.choice.backend,
        "model": plan.choice.model,
        "parts": sorted(plan.parts),
        "seed": plan.seed,
        "interrupted": result.interrupted,
        "figures": figures.document(_figures(result)),
        "cold": cold_document(cold) if cold else None,
        "swaps_ms": [seconds * 1000 for seconds in result.swaps_s],
    }


def cold_document(cold: ColdLoad) -> report.Document:
    """The cold starts, each in milliseconds."""
    return {
        "direct_ms": [seconds * 1000 for seconds in cold.direct_s],
        "via_ms": [seconds * 1000 for seconds in cold.via_s],
        "ratio": report.interval_document(cold.ratio),
    }


def show(console: Console, result: ColdResult) -> None:
    """Show the result as a page."""
    found = _figures(result)
    if found:
        figures.show(console, f"To the first token, {result.plan.choice.backend}", found)
    if result.interrupted:
        console.print("[yellow]Interrupted: these are the starts that were complete by then.[/]")


def _figures(result: ColdResult) -> list[Figure]:
    found = []
    if (cold := result.cold) is not None:
        sides = [f"{median(seconds):.2f} s" for seconds in (cold.direct_s, cold.via_s)]
        found.append(Figure(f"cold start, {len(cold.via_s)} pairs", RATIO, cold.ratio, COLD_RATIO, *sides))
    if result.swaps_s:
        seconds = bootstrap_median(result.swaps_s, seed=result.plan.seed)
        slowest = f"up to {max(result.swaps_s):.2f} s"
        found.append(Figure(f"swap, {seconds.count} times", "s", seconds, SWAP_S, via=slowest))
    return found
