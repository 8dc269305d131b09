"""The plots of `porten-bench tunnel`: each part by its loads, and storms over time.

Owns which figures, by their keys, stand in one plot.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.reports.drawable import bars, by_key, present
from benchmarks.reports.result import Axis, Group, Line, Plot
from benchmarks.tunnel.bare import Storm

_PROCESSES: Final = ("hub", "node", "engine")
_PERCENTILES: Final = ("p50", "p99")


def plots(groups: Sequence[Group], storms: Sequence[Storm]) -> list[Plot]:
    """What can be drawn."""
    return present([*_levels(groups), *_sessions(groups), _storms(storms)])


def _levels(groups: Sequence[Group]) -> Iterator[Plot | None]:
    found = by_key(groups)
    relay, latency = (_named(_loads(list(found), part)) for part in ("relay", "latency"))
    yield bars(
        "relay/chunks_per_s",
        "Chunks a second through Hub and node",
        {"": {name: found.get(f"relay/{load}/chunks_per_s") for load, name in relay}},
        name="chunks/s",
    )
    yield bars(
        "relay/cpu_s_per_100k",
        "CPU time of each process for 100,000 chunks",
        {
            process: {name: found.get(f"relay/{load}/{process}_cpu_s_per_100k") for load, name in relay}
            for process in _PROCESSES
        },
        name="CPU time",
    )
    yield bars(
        "relay/added_chunk_ms",
        "How much longer a chunk is on its way",
        {
            which: {name: found.get(f"relay/{load}/added_chunk_{which}_ms") for load, name in relay}
            for which in _PERCENTILES
        },
        name="added",
    )
    yield bars(
        "latency/added_ttft_ms",
        "What is added to the time to the first chunk",
        {"": {name: found.get(f"latency/{load}/added_ttft_p50_ms") for load, name in latency}},
        name="added to TTFT p50",
    )


def _named(loads: Sequence[str]) -> list[tuple[str, str]]:
    """Each load as keys have it, and as people read it."""
    return [(load, re.sub(r"^(\d+)x(\d+)ms$", r"\1 x \2 ms", load)) for load in loads]


def _loads(keys: Sequence[str], part: str) -> list[str]:
    """The loads of a part, by their names in keys."""
    return list(dict.fromkeys(key.split("/")[1] for key in keys if key.startswith(f"{part}/")))


def _sessions(groups: Sequence[Group]) -> Iterator[Plot | None]:
    found = by_key(groups)
    counts = _loads(list(found), "sessions")
    yield bars(
        "sessions/kib_each",
        "Memory of an idle session",
        {"": {f"{count} sessions": found.get(f"sessions/{count}/kib_each") for count in counts}},
        name="memory of each",
    )


def _storms(storms: Sequence[Storm]) -> Plot:
    return Plot(
        key="storm/standing",
        title="Nodes come back after the Hub's loss",
        kind="timeline",
        x=Axis(name="since a Hub listens again", unit="s"),
        y=Axis(name="nodes that stand"),
        lines=[
            Line(
                name=f"{storm.handshakes_per_s:g} let in a second",
                x=[0.0, *(seconds for seconds, _ in storm.standing)],
                y=[0.0, *(float(count) for _, count in storm.standing)],
            )
            for storm in storms
        ],
    )
