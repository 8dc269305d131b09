"""The plots of `porten-bench hub`.

Owns which figures, by their keys, stand in one plot.
"""

from collections.abc import Sequence

from benchmarks.reports.drawable import bars, by_key, present
from benchmarks.reports.result import Group, Plot


def plots(groups: Sequence[Group]) -> list[Plot]:
    """What can be drawn."""
    found = by_key(groups)
    spent = {
        "1,000 requests": found.get("requests/hub_cpu_s_per_1000"),
        "100,000 chunks": found.get("chunks/hub_cpu_s_per_100k"),
    }
    return present([bars("hub_cpu_s", "CPU time of the Hub", {"": spent}, name="CPU time")])
