"""The plots of `porten-bench routing`: every rule beside the others.

Owns which figures, by their keys, stand in one plot, and the distributions of TTFT.
"""

from collections.abc import Mapping, Sequence

from benchmarks.reports.drawable import bars, by_key, cdf, present
from benchmarks.reports.result import Axis, Group, Plot
from benchmarks.routing.rules import RuleName
from benchmarks.routing.simulation import Outcome


def plots(groups: Sequence[Group], traces: Sequence[Mapping[RuleName, Outcome]]) -> list[Plot]:
    """What can be drawn."""
    found = by_key(groups)

    def by_rule(key: str, title: str, *names: tuple[str, str], log: bool = False) -> Plot | None:
        rows = {
            name: {rule.value: found.get(f"simulation/{rule.value}/{figure}") for rule in RuleName}
            for figure, name in names
        }
        return bars(f"simulation/{key}", title, rows, log=log)

    return present(
        [
            _ttft(traces),
            by_rule("ttft_ms", "TTFT by rule", ("ttft_p50_ms", "p50"), ("ttft_p99_ms", "p99"), log=True),
            by_rule("goodput", "Requests a second whose first token came in time", ("goodput", "")),
            by_rule("cached_percent", "Prompt tokens that were cached", ("cached_percent", "")),
        ]
    )


def _ttft(traces: Sequence[Mapping[RuleName, Outcome]]) -> Plot | None:
    if not traces:
        return None
    return Plot(
        key="simulation/ttft_cdf",
        title="TTFT of all traces",
        kind="cdf",
        x=Axis(name="TTFT", unit="ms", log=True),
        y=Axis(name="share of requests"),
        lines=[
            cdf(rule.value, [1000 * wait for outcomes in traces for wait in outcomes[rule].waits])
            for rule in RuleName
        ],
    )
