"""The plots of `porten-bench node`: the daemon against its engine by numbers of streams.

Owns which figures, by their keys, stand in one plot.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.reports.drawable import bars, by_key, present
from benchmarks.reports.result import Group, Plot, Value

_KEY: Final = re.compile(r"(\d+)_cores_free/c(\d+)/(\w+)")
_PLOTS: Final = (
    ("throughput_ratio", "Tokens a second through the node", "node / engine"),
    ("added_ttft_ms", "What the node adds to TTFT p50", "node - engine"),
    ("daemon_cpu_ms_per_token", "CPU time of the daemon for a token", "CPU time"),
)


def plots(groups: Sequence[Group]) -> list[Plot]:
    """What can be drawn."""
    found = by_key(groups)
    return present(
        bars(f"relay/{figure}", title, _rows(found, figure), name=name) for figure, title, name in _PLOTS
    )


def _rows(found: Mapping[str, Value], figure: str) -> dict[str, dict[str, Value]]:
    """By cores left free, and by streams."""
    rows: dict[str, dict[str, Value]] = {}
    for key, value in found.items():
        match = _KEY.fullmatch(key)
        if match is not None and match[3] == figure:
            streams = "1 stream" if match[2] == "1" else f"{match[2]} streams"
            rows.setdefault(_free(int(match[1])), {})[streams] = value
    return rows


def _free(cores: int) -> str:
    return {0: "engine on every core", 1: "one core free"}.get(cores, f"{cores} cores free")
