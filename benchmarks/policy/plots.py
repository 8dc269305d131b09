"""The plots of `porten-bench policy`: the time of a decision by fleet.

Owns which figures, by their keys, stand in one plot.
"""

from collections.abc import Sequence
from typing import Final

from benchmarks.policy.decision import DecisionCase
from benchmarks.reports.drawable import bars, by_key, present
from benchmarks.reports.result import Group, Plot

_KINDS: Final = {"hot": "hot model", "mixed": "all models", "place": "taking a place"}


def plots(groups: Sequence[Group], cases: Sequence[DecisionCase]) -> list[Plot]:
    """What can be drawn."""
    found = by_key(groups)
    return present(
        bars(
            f"decision/{which}_us",
            f"A decision by fleet, {which}",
            {
                name: {str(case.size): found.get(f"decision/{case.key}/{kind}_{which}_us") for case in cases}
                for kind, name in _KINDS.items()
            },
            name="processor time",
        )
        for which in ("p50", "p99")
    )
