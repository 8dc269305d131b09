"""The result of `porten-bench cold-load`.

Owns the bounds a load is to keep, and which figures tell whether it does.
"""

from typing import Final

from benchmarks.cold.loads import ColdLoad
from benchmarks.cold.measuring import ColdResult
from benchmarks.cold.plots import plots
from benchmarks.figures.bounds import RATIO, Bound, Figure
from benchmarks.figures.statistics import bootstrap_median, median
from benchmarks.reports.result import Made, Result, group

COLD_RATIO: Final = Bound(1.15)
SWAP_S: Final = Bound(2.0)
SIDES: Final = ("engine", "node")


def report(found: ColdResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan = found.plan
    return Result(
        benchmark="cold-load",
        made=made,
        settings={
            "backend": plan.choice.backend,
            "model": plan.choice.model,
            "parts": sorted(plan.parts),
            "rounds": plan.rounds,
            "swaps": plan.swaps,
            "seed": plan.seed,
        },
        groups=[group(f"To the first token, {plan.choice.backend}", _figures(found), sides=SIDES)],
        plots=plots(found.cold, found.swaps_s),
        interrupted=found.interrupted,
        details={"cold": details(found.cold) if found.cold else None},
    )


def details(cold: ColdLoad) -> dict[str, object]:
    """Each cold start, in milliseconds."""
    return {
        "direct_ms": [seconds * 1000 for seconds in cold.direct_s],
        "via_ms": [seconds * 1000 for seconds in cold.via_s],
    }


def cold_figure(cold: ColdLoad, key: str, bound: Bound) -> Figure:
    """The ratio of cold starts."""
    direct, via = (f"{median(seconds):.2f} s" for seconds in (cold.direct_s, cold.via_s))
    name = f"cold start, {len(cold.via_s)} pairs"
    return Figure(key=key, name=name, unit=RATIO, found=cold.ratio, bound=bound, direct=direct, via=via)


def _figures(found: ColdResult) -> list[Figure]:
    figures = []
    if found.cold is not None:
        figures.append(cold_figure(found.cold, "cold/ratio", COLD_RATIO))
    if found.swaps_s:
        seconds = bootstrap_median(found.swaps_s, seed=found.plan.seed)
        name, slowest = f"swap, {seconds.count} times", f"up to {max(found.swaps_s):.2f} s"
        figures.append(Figure(key="swap/s", name=name, unit="s", found=seconds, bound=SWAP_S, via=slowest))
    return figures
