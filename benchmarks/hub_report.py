"""The result of `porten-bench hub` as people read it and as programs do (schema ``porten.bench.hub/1``).

Owns the bounds the Hub is to keep, its tables and its document.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console

from benchmarks import figures, report
from benchmarks.bounds import Bound, Figure
from benchmarks.hub_bench import HubResult
from benchmarks.hub_memory import MODELS_OF_A_NODE, HubMemory
from benchmarks.overhead import Level
from benchmarks.tunnel_relay import RelayLevel

HUB_SCHEMA: Final = "porten.bench.hub/1"
CPU_S_PER_1000_REQUESTS: Final = Bound(0.35)
REQUESTS_PER_S: Final = Bound(2500.0, at_least=True)
CPU_S_PER_100K_CHUNKS: Final = Bound(2.0)
RESIDENT_MB: Final = Bound(250.0)
_MB: Final = 1_000_000


def document(
    result: HubResult, *, command: Sequence[str], environment: Mapping[str, object]
) -> report.Document:
    """The result for a JSON file."""
    plan = result.plan
    return report.envelope(HUB_SCHEMA, command, environment) | {
        "parts": sorted(plan.parts),
        "rounds": plan.rounds,
        "seed": plan.seed,
        "interrupted": result.interrupted,
        "figures": [
            {"part": title, "figures": figures.document(found)} for title, found in _parts(result).items()
        ],
        "requests": report.comparison_document(result.requests) if result.requests else None,
    }


def show(console: Console, result: HubResult) -> None:
    """Show the result as a page."""
    for title, found in _parts(result).items():
        figures.show(console, title, found, sides=())
    for line in report.comparison_remarks(result.requests) if result.requests else ():
        console.print(line, highlight=False)
    if result.interrupted:
        console.print("[yellow]Interrupted: these are the parts that were complete by then.[/]")


def _parts(result: HubResult) -> dict[str, list[Figure]]:
    """The figures of each part, by the part's title."""
    parts: dict[str, list[Figure]] = {}
    for level in result.requests.levels if result.requests else ():
        parts[f"Requests that are not streamed, {level.concurrency} at once"] = _requests(level)
    if result.chunks is not None:
        parts[f"Streams: {result.chunks.load}"] = _chunks(result.chunks)
    if result.memory is not None:
        title = f"{result.memory.nodes} nodes connected, {MODELS_OF_A_NODE} models each"
        parts[title] = _memory(result.memory)
    return parts


def _requests(level: Level) -> list[Figure]:
    # An answer here is one token.
    spent = {name: seconds * 1000 for name, seconds in level.cpu_per_token_s.items()}
    return [
        Figure("CPU of the Hub, 1,000 requests", "s", spent.get("hub"), CPU_S_PER_1000_REQUESTS),
        Figure("requests/s on this machine", "", level.via.requests_per_s, REQUESTS_PER_S),
    ]


def _chunks(level: RelayLevel) -> list[Figure]:
    spent = level.cpu_per_100k_s.get("hub")
    return [Figure("CPU of the Hub, 100,000 chunks", "s", spent, CPU_S_PER_100K_CHUNKS)]


def _memory(memory: HubMemory) -> list[Figure]:
    return [Figure("memory of the Hub (RSS)", "MB", memory.bytes / _MB, RESIDENT_MB)]
