"""The plots of `porten-bench cold-load`: seconds to the first token.

Owns which measured times stand in one plot.
"""

from collections.abc import Sequence

from benchmarks.cold.loads import ColdLoad
from benchmarks.figures.bounds import Figure
from benchmarks.figures.statistics import bootstrap_median
from benchmarks.reports.drawable import bars, present
from benchmarks.reports.result import Plot, Value, value


def plots(cold: ColdLoad | None, swaps_s: Sequence[float]) -> list[Plot]:
    """What can be drawn."""
    engine = {"cold start": _seconds(cold.direct_s)} if cold else {}
    node = {"cold start": _seconds(cold.via_s)} if cold else {}
    if swaps_s:
        node["swap"] = _seconds(swaps_s)
    title = "To the first token of a model that is not loaded"
    return present([bars("first_token_s", title, {"engine": engine, "node": node}, name="median")])


def _seconds(values: Sequence[float]) -> Value:
    return value(Figure(key="", name="", unit="s", found=bootstrap_median(values, seed=0)))
