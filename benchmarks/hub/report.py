"""The result of `porten-bench hub`.

Owns the bounds the Hub is to keep, and which figures tell whether it does.
"""

from typing import Final

from benchmarks.figures.bounds import Bound, Figure
from benchmarks.hub.measuring import HubResult
from benchmarks.hub.memory import MODELS_OF_A_NODE, HubMemory
from benchmarks.hub.plots import plots
from benchmarks.overhead import report as overhead_report
from benchmarks.overhead.comparing import Level
from benchmarks.reports.result import Group, Made, Result, group
from benchmarks.tunnel.relay import RelayLevel

CPU_S_PER_1000_REQUESTS: Final = Bound(0.35)
REQUESTS_PER_S: Final = Bound(2500.0, at_least=True)
CPU_S_PER_100K_CHUNKS: Final = Bound(2.0)
RESIDENT_MB: Final = Bound(250.0)
_MB: Final = 1_000_000


def report(found: HubResult, made: Made) -> Result:
    """The result as it is shown and written."""
    plan, groups = found.plan, _groups(found)
    return Result(
        benchmark="hub",
        made=made,
        settings={
            "parts": sorted(plan.parts),
            "rounds": plan.rounds,
            "concurrency": plan.concurrency,
            "requests": plan.requests,
            "streams": str(plan.streams),
            "nodes": plan.nodes,
            "seed": plan.seed,
        },
        groups=groups,
        plots=plots(groups),
        remarks=overhead_report.remarks(found.requests) if found.requests else [],
        interrupted=found.interrupted,
        details={"requests": overhead_report.details(found.requests)} if found.requests else {},
    )


def _groups(found: HubResult) -> list[Group]:
    groups = []
    for level in found.requests.levels if found.requests else ():
        title = f"Requests that are not streamed, {level.load.concurrency} at once"
        groups.append(group(title, _requests(level)))
    if found.chunks is not None:
        groups.append(group(f"Streams: {found.chunks.load}", _chunks(found.chunks)))
    if found.memory is not None:
        title = f"{found.memory.nodes} nodes connected, {MODELS_OF_A_NODE} models each"
        groups.append(group(title, _memory(found.memory)))
    return groups


def _requests(level: Level) -> list[Figure]:
    spent = level.via.cpu.get("hub")
    return [
        Figure(
            key="requests/hub_cpu_s_per_1000",
            name="CPU of the Hub, 1,000 requests",
            unit="s",
            found=None if spent is None else spent.per_request_s.scaled(1000),
            bound=CPU_S_PER_1000_REQUESTS,
        ),
        Figure(
            key="requests/requests_per_s",
            name="requests/s on this machine",
            unit="",
            found=level.via.requests_per_s,
            bound=REQUESTS_PER_S,
        ),
    ]


def _chunks(level: RelayLevel) -> list[Figure]:
    return [
        Figure(
            key="chunks/hub_cpu_s_per_100k",
            name="CPU of the Hub, 100,000 chunks",
            unit="s",
            found=level.cpu_per_100k_s.get("hub"),
            bound=CPU_S_PER_100K_CHUNKS,
        )
    ]


def _memory(memory: HubMemory) -> list[Figure]:
    return [
        Figure(
            key="memory/hub_rss_mb",
            name="memory of the Hub (RSS)",
            unit="MB",
            found=memory.bytes / _MB,
            bound=RESIDENT_MB,
        )
    ]
